"""What every aggregator can do, plain, masked or crypten: sum what the sites hold, and open only the sum."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fedscgen._types import Message

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen._types import NamedArrays

Ask = Callable[[Mapping[str, Message]], Iterable[tuple[str, Message]]]
"""Send a message to each named site and give the answers of those that answer, one by one as they come.

The caller can add them up without holding all of them at a time.
"""


OPENED_SUM = "opened sum"
"""Kind of the message with which the coordinator publishes what it has opened."""


class AggregationError(RuntimeError):
    """A sum could not be opened; nothing was."""


@dataclass(frozen=True)
class Contribution:
    """One site's term of the sum.

    Parameters
    ----------
    arrays
        Finite floating-point arrays by name; every site contributes the same names and shapes.
    weight
        What the arrays are multiplied by, and itself summed.
    number
        Which of the run's sums it is for, from 1.
    group
        Sums of one group are over the same sites, all of which must contribute: with one of them missing, the
        difference to what was opened before would be its own term. ``None``: sites may drop out.
    """

    arrays: Mapping[str, np.ndarray]
    weight: float = 1.0
    number: int = 0
    group: str | None = None


@dataclass(frozen=True)
class Sums:
    """An opened sum.

    Parameters
    ----------
    arrays
        Weight times array, summed over the sites, by name.
    weight
        The summed weights.
    n_sites
        Sites in the sum.
    """

    arrays: Mapping[str, np.ndarray]
    weight: float
    n_sites: int

    def to_message(self) -> Message:
        """The sum as it is published to the sites."""
        return Message(OPENED_SUM, {"weight": self.weight, "n_sites": self.n_sites}, self.arrays)

    @classmethod
    def from_message(cls, message: Message) -> Sums:
        """Read what :meth:`to_message` wrote."""
        return cls(dict(message.arrays), float(message.meta["weight"]), int(message.meta["n_sites"]))


class Contributor(Protocol):
    """The half of an aggregator that lives at a site.

    A class that inherits from this one has all but :meth:`contribute` already: sites don't get to know each other, the
    protocol has no stage of its own, and the coordinator is believed what it publishes.
    """

    @abstractmethod
    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Turn the site's term into what may leave it, in answer to ``task``."""
        ...

    def answer(self, message: Message) -> Message:
        """Answer one of the protocol's own stages, such as a key exchange."""
        raise AggregationError(f"nothing of a run has the kind {message.kind!r}: this site has no answer to it")

    def find_sites(self, task: Message) -> Sequence[str]:
        """Sites in the sum that a task is for, where this protocol tells a site before it contributes; else none."""
        return ()

    def read_sum(self, message: Message, number: int) -> Sums:
        """What was opened of the run's sum of that number, as the coordinator publishes it.

        Raises
        ------
        AggregationError
            It isn't the sum of what the sites contributed, where this protocol lets a site find out.
        """
        return Sums.from_message(message)

    def introduce(self, run: str) -> dict[str, str]:
        """What the other sites of a run need to know of this one; ``run`` is the fingerprint of what was agreed on."""
        return {}

    def meet(self, agreed: str, introductions: Mapping[str, Mapping[str, str]], least: int) -> dict[str, str]:
        """Get to know the sites of a run, this one among them; what is returned is for the others, by name.

        ``agreed`` is the fingerprint of what has been agreed on since, ``least`` the fewest sites in any sum.

        Raises
        ------
        AggregationError
            One of them is not who it says.
        """
        return {}

    def prepare(self, settings: Message) -> NamedArrays:
        """What the first sum needs of this site, which goes out as soon as it has met the others.

        ``settings`` has the entries that the aggregator's :meth:`PreparingAggregator.prepare` gave.
        """
        return {}

    def join(self, sealed: str) -> None:
        """Take what :meth:`meet` has returned for this site at another."""
        return None

    def save(self) -> bytes:
        """What :meth:`restore` needs to take part in the run again, after the site's process has ended."""
        return b""

    def restore(self, saved: bytes) -> None:
        """Take part again as :meth:`save` has left it."""
        return None

    def identify(self, identity: Path, trusted: Mapping[str, str] | None) -> None:
        """Take the file of the site's identity, and the fingerprints of the other sites' by name.

        ``None`` believes what the coordinator passes on of the others.
        """
        return None


@runtime_checkable
class Aggregator(Protocol):
    """The half that lives at the coordinator. Use it as a context manager: it may hold processes."""

    name: str

    @property
    def selects(self) -> bool:
        """Whether :meth:`select` may be used."""
        ...

    def __enter__(self) -> Aggregator: ...

    def __exit__(self, *exception: object) -> None: ...

    def contributor(self, site: str) -> Contributor:
        """The site's half, for a site in the same process."""
        ...

    def sum(
        self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False, may_shrink: bool = False
    ) -> Sums:
        """Have every site perform ``task`` and open the sum of what they contribute.

        Parameters
        ----------
        ask
            The way to the sites.
        sites
            Names of those that take part.
        task
            What they shall do.
        require_all
            Open nothing unless every one of them contributes.
        may_shrink
            If one of them doesn't, the others are asked again without it, which they must be able to agree to.

        Raises
        ------
        AggregationError
            Too few sites contributed, or what they sent doesn't fit together.
        """
        ...

    def select(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Open, for each key, the values of the site whose key is largest; the first of equals.

        Every site contributes ``keys`` of shape ``(n_keys,)``, whole numbers from 0, and ``values`` of shape
        ``(n_keys, n_dimensions)``. Opened are ``values``, and the largest ``keys`` where this aggregator shows the keys
        to the coordinator. Nothing is opened unless every site contributes: a key might be left to a single one.

        Parameters
        ----------
        ask
            The way to the sites.
        sites
            Names of those that take part, in the order in which the first of equals is chosen.
        task
            What they shall do.

        Raises
        ------
        AggregationError
            A site is missing, contributed something else, or doesn't agree to show its keys where that is needed.
        """
        ...


@runtime_checkable
class PreparingAggregator(Protocol):
    """What an aggregator has besides, if sites can prepare its first sum while they get to know each other."""

    def prepare(self, sites: Sequence[str]) -> dict[str, Any]:
        """What all of these sites are told of the sum, over all of them, beside their settings."""
        ...

    def take_prepared(self, answers: Mapping[str, Message]) -> None:
        """Take what each site has prepared (:meth:`Contributor.prepare`), in the order of the sites.

        Raises
        ------
        AggregationError
            A site has answered with something that doesn't fit.
        """
        ...
