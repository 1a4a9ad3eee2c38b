"""A federation's state between two rounds, as a file from which it can go on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedscgen._files import write_whole
from fedscgen._types import Message, NamedArrays
from fedscgen.correction import read_references
from fedscgen.federation._settings import settings_as_json
from fedscgen.model import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from fedscgen._types import References
    from fedscgen.correction import Landmarks
    from fedscgen.federation._settings import FederationSettings

logger = logging.getLogger(__name__)

_KIND, _FORMAT = "checkpoint", 1
_WEIGHTS, _BEST, _FIRST, _SECOND = "weights: ", "best weights: ", "first moments: ", "second moments: "
_MAY_CHANGE = ("n_rounds", "min_sites")
_REMEDY = "choose another output, or delete the file to begin anew"


@dataclass(frozen=True)
class Checkpoint:
    """What the coordinator holds when a round is finished.

    Parameters
    ----------
    settings
        The federation's settings, as :func:`settings_as_json` gives them.
    round
        The finished round, from 1.
    genes
        The federation's genes, in the model's order.
    losses
        The federation's validation loss of the weights with which each round began.
    best
        The round with the lowest loss, and the weights it began with; none where no early stopping needs them.
    sites
        Names of the sites that take part.
    weights
        The federation's weights.
    optimizer
        See :attr:`fedscgen.aggregation.ServerOptimizer.state`.
    references
        Where cells belong, once that is found; ``weights`` are then the final ones.
    """

    settings: Mapping[str, Any]
    round: int
    genes: list[str]
    losses: list[float]
    best: tuple[int, NamedArrays]
    sites: list[str]
    weights: NamedArrays
    optimizer: tuple[int, NamedArrays, NamedArrays]
    references: References | Landmarks | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What :meth:`write` wrote, or ``None`` if there is no such file.

        Raises
        ------
        CheckpointError
            The file is damaged, or something else.
        """
        try:
            return cls._from_message(Message.from_bytes(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} holds a damaged or foreign checkpoint ({error}): {_REMEDY}") from error

    def write(self, path: Path) -> None:
        """Replace the file; whenever the process ends, the old or the new one is there as a whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self._to_message().to_bytes())

    def check(self, path: Path, settings: FederationSettings, genes: list[str], sites: list[str]) -> None:
        """Refuse to go on from another federation's state; rounds, fewest sites and who takes part may change.

        Raises
        ------
        CheckpointError
            Settings or genes differ; the message names them and ``path``.
        """
        before, now = self.settings, settings_as_json(settings)
        free = _MAY_CHANGE if settings.seed is not None else (*_MAY_CHANGE, "seed")
        names = [name for name in {**before, **now} if name not in free and before.get(name) != now.get(name)]
        differing = [f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names]
        if self.genes != genes:
            differing.append(_difference(self.genes, genes))
        if differing:
            raise CheckpointError(f"{path} is of another federation: {'; '.join(differing)}: {_REMEDY}")
        if self.sites != sites:
            logger.warning("goes on with other sites: they were %s and are %s", *map(", ".join, (self.sites, sites)))

    def _to_message(self) -> Message:
        n_steps, first, second = self.optimizer
        meta = {
            "format": _FORMAT,
            "settings": self.settings,
            "round": self.round,
            "genes": self.genes,
            "losses": self.losses,
            "best_round": self.best[0],
            "n_steps": n_steps,
            "sites": self.sites,
            "references": None if self.references is None else self.references.to_json(),
        }
        parts = {_WEIGHTS: self.weights, _BEST: self.best[1], _FIRST: first, _SECOND: second}
        arrays = {prefix + name: array for prefix, part in parts.items() for name, array in part.items()}
        return Message(_KIND, meta, arrays)

    @classmethod
    def _from_message(cls, message: Message) -> Self:
        meta = message.meta
        if message.kind != _KIND or meta["format"] != _FORMAT:
            raise ValueError(f"it holds {message.kind!r} of format {meta.get('format')}, not {_KIND!r} of {_FORMAT}")
        weights, best, first, second = (
            {name.removeprefix(prefix): array for name, array in message.arrays.items() if name.startswith(prefix)}
            for prefix in (_WEIGHTS, _BEST, _FIRST, _SECOND)
        )
        return cls(
            settings=dict(meta["settings"]),
            round=int(meta["round"]),
            genes=list(meta["genes"]),
            losses=list(meta["losses"]),
            best=(int(meta["best_round"]), best),
            sites=list(meta["sites"]),
            weights=weights,
            optimizer=(int(meta["n_steps"]), first, second),
            references=None if meta["references"] is None else read_references(meta["references"]),
        )


def _difference(before: list[str], now: list[str]) -> str:
    gone, new = (", ".join(sorted(set(a) - set(b))[:5]) or "none" for a, b in ((before, now), (now, before)))
    order = ", in another order" if gone == new else ""
    return f"there were {len(before)} genes and are {len(now)} (gone: {gone}; new: {new}){order}"
