"""What every aggregator can do, plain, masked or crypten: sum what the sites hold, and open only the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from fedscgen._types import Message, NamedArrays

Ask = Callable[[Mapping[str, Message]], Iterable[tuple[str, Message]]]
"""Send a message to each named site and give the answers of those that answer, one by one as they come.

The caller can add them up without holding all of them at a time.
"""


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
    """

    arrays: Mapping[str, np.ndarray]
    weight: float = 1.0


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

    arrays: NamedArrays
    weight: float
    n_sites: int


class Contributor(Protocol):
    """The half of an aggregator that lives at a site."""

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Turn the site's term into what may leave it, in answer to ``task``."""
        ...

    def answer(self, message: Message) -> Message:
        """Answer one of the protocol's own stages, such as a key exchange."""
        ...


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

    def sum(self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False) -> Sums:
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
