"""What a run is: all that is fixed before anything is computed, for a site to agree to or not."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from fedscgen._options import check_fields, read_options
from fedscgen._types import Message
from fedscgen.federation._protocol import DESCRIBE
from fedscgen.federation._settings import FederationSettings, settings_as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from fedscgen._types import NamedArrays
    from fedscgen.secure import Aggregator

_NAME = re.compile("[0-9a-f]{32}")

Workflow = Literal["training", "correction", "check"]
"""What a run does: train, correct the cells of sites that come later, or find out whether sites could train."""


@dataclass(frozen=True)
class Plan:
    """What a coordinator proposes. Whatever a site is asked afterwards follows from it, and from what is opened.

    Parameters
    ----------
    run
        The run's random name.
    workflow
        What it does.
    settings
        What all sites do alike, with a seed.
    aggregator
        How sums over the sites are opened.
    reveals_counts
        Whether the coordinator comes to see a site's counts.
    sites
        Names of all sites that take part.
    init_model
        SHA-256 of the weights that training begins with, if they come from a file of the coordinator's.
    """

    run: str
    workflow: Workflow
    settings: FederationSettings
    aggregator: str
    reveals_counts: bool
    sites: tuple[str, ...]
    init_model: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not _NAME.fullmatch(self.run):
            raise ValueError(f"run={self.run!r}: 32 hexadecimal digits, as it names a folder of every site")
        if len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites={self.sites}: each once")
        if self.init_model is not None and self.settings.n_top_genes is not None:
            raise ValueError(
                f"n_top_genes={self.settings.n_top_genes}, and training begins with a model, which has its own genes: "
                "leave one of the two out"
            )

    @classmethod
    def propose(
        cls,
        workflow: Workflow,
        settings: FederationSettings,
        aggregator: Aggregator,
        sites: Sequence[str],
        weights: NamedArrays | None = None,
    ) -> Self:
        """The plan of a run that begins now.

        Parameters
        ----------
        workflow, settings, sites
            As above.
        aggregator
            The coordinator's.
        weights
            That training begins with, if they come from a file.
        """
        shows_counts = workflow == "training" and (aggregator.name == "plain" or settings.reference == "dominant")
        init_model = None if weights is None else hash_arrays(weights)
        name = secrets.token_hex(16)
        return cls(name, workflow, settings, aggregator.name, shows_counts, tuple(sites), init_model)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            Something is missing, unknown or out of range.
        """
        others = {name: value for name, value in content.items() if name != "settings"}
        missing = [name for name in cls.__dataclass_fields__ if name not in content]
        unknown = [name for name in content if name not in cls.__dataclass_fields__]
        if missing or unknown:
            raise ValueError(f"the plan lacks {missing} and has {unknown}, which this version doesn't know")
        settings = read_options(FederationSettings, content["settings"], "the plan's settings")
        return cls(**{**others, "sites": tuple(content["sites"])}, settings=settings)

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Read a proposal."""
        return cls.from_json(message.meta)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {**asdict(self), "settings": settings_as_json(self.settings), "sites": list(self.sites)}

    def to_message(self) -> Message:
        """The proposal, with which every site is asked to describe its cells."""
        return Message(DESCRIBE, self.to_json())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan, 64 hexadecimal digits: two sites that have the same one have agreed to the same."""
        return hash_json(self.to_json())

    def explain(self) -> str:
        """The plan in words, for whoever runs a site."""
        if self.workflow == "check":
            return f"Run {self.run}: this site tells what it has, before anybody trains. Nothing is summed."
        if self.workflow == "correction":
            return f"Run {self.run}: this site gets a trained model and corrects its cells. It is asked for nothing."
        settings = self.settings
        lines = [
            f"Run {self.run} (fingerprint {self.fingerprint}): {len(self.sites)} sites ({', '.join(self.sites)}) train "
            f"{settings.architecture!r} together. What they contribute is summed by {self.aggregator!r}"
            f"{', and the coordinator sees counts of cells' if self.reveals_counts else ''}.",
            f"- {settings.n_rounds} rounds of {settings.n_epochs} epochs, at a learning rate of {settings.lr:g} and "
            f"{settings.batch_size} cells a batch.",
            *_explain_genes(settings),
            f"- Then references of the kind {settings.reference!r}.",
            "- The coordinator asks no question of its own: what every sum is for follows from this plan and from the "
            "sums before it.",
        ]
        if self.init_model is not None:
            lines.append(f"- Training begins with weights of the coordinator's, of SHA-256 {self.init_model}.")
        return "\n".join(lines)


def _explain_genes(settings: FederationSettings) -> Iterator[str]:
    if settings.gene_list:
        yield f"- On genes of a list of {len(settings.gene_list):,} only."
    if settings.n_top_genes is not None:
        yield f"- On the {settings.n_top_genes:,} genes that vary most, which the sites find by one sum before."
    if settings.target_sum is not None:
        yield f"- On cells that were normalised to {settings.target_sum:,.0f} molecules."


def hash_json(content: Any) -> str:
    """SHA-256 of JSON-serialisable values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, whatever their order."""
    ordered = {name: arrays[name] for name in sorted(arrays)}
    return hashlib.sha256(Message("arrays", {}, ordered).to_buffer()).hexdigest()
