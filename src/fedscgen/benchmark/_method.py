"""What a method is, and what it can do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fedscgen.benchmark._cells import Cells, Embedded

if TYPE_CHECKING:
    import numpy as np

    from fedscgen._rows import Matrix


@dataclass(frozen=True)
class Method:
    """A method and what it can do.

    Parameters
    ----------
    embed
        Function that takes :class:`Cells` and returns an embedding of all of them, shape ``(n_cells, n_dimensions)``,
        or an :class:`Embedded` that holds more. Its other parameters, all with defaults, are the settings that a
        specification may change.
    name_more
        Names the settings that ``embed`` takes without naming them.
    centralized
        Whether it needs all cells in one place. The report compares the other methods with the baseline.
    takes_newcomers
        Whether it embeds batches that it didn't train on.
    takes_unlabelled
        Whether it gets along with cells whose type is :data:`UNLABELLED`. One that would take this for a type says no,
        and is refused for experiments that hide labels.
    defaults
        Settings that differ from those of the function.
    decode
        Function that takes the same and returns corrected expression, shape ``(n_cells, n_genes)``, sparse or dense, if
        the method has any. It isn't given the setting ``embedding``.
    embed_by_round
        Function that takes the same and yields, for each round, the number of rounds so far and the embedding, if the
        method trains in rounds.
    check
        Function that takes the settings of a specification, completed by the defaults, and raises a ``ValueError`` that
        names the one with which the method can't run. It is called when a specification is read.
    """

    embed: Callable[..., np.ndarray | Embedded]
    name_more: Callable[[], set[str]] = set
    centralized: bool = False
    takes_newcomers: bool = False
    takes_unlabelled: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    decode: Callable[..., Matrix] | None = None
    embed_by_round: Callable[..., Iterator[tuple[int, np.ndarray]]] | None = None
    check: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def decodes(self) -> bool:
        """Whether it yields corrected expression."""
        return self.decode is not None

    @property
    def in_rounds(self) -> bool:
        """Whether it trains in rounds."""
        return self.embed_by_round is not None

    def settings(self) -> set[str]:
        """Names of all settings."""
        return name_parameters(self.embed) | self.name_more()

    def __call__(self, cells: Cells, settings: Mapping[str, Any]) -> np.ndarray:
        """Embed all cells."""
        return self.run(cells, settings).embedding

    def run(self, cells: Cells, settings: Mapping[str, Any]) -> Embedded:
        """Embed all cells, with whatever else the method yields, and expression where it is asked for and decoded."""
        result = self.embed(cells, **self.complete(settings))
        embedded = result if isinstance(result, Embedded) else Embedded(result)
        if cells.wants_expression and self.decodes and embedded.expression is None:
            return replace(embedded, expression=self.expression(cells, settings))
        return embedded

    def expression(self, cells: Cells, settings: Mapping[str, Any]) -> Matrix:
        """Corrected expression of all cells, shape ``(n_cells, n_genes)``; for methods that decode."""
        if self.decode is None:
            raise TypeError("this method doesn't decode: see decodes")
        return self.decode(cells, **{k: v for k, v in self.complete(settings).items() if k != "embedding"})

    def round_by_round(self, cells: Cells, settings: Mapping[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
        """Embed all cells after each round of training; for methods that train in rounds."""
        if self.embed_by_round is None:
            raise TypeError("this method doesn't train in rounds: see in_rounds")
        return self.embed_by_round(cells, **self.complete(settings))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse with a ``ValueError`` settings with which the method can't run, as far as it can tell."""
        if self.check is not None:
            self.check(self.complete(settings))

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, with this method's own defaults where they say nothing."""
        return {**self.defaults, **settings}


def name_parameters(function: Callable[..., Any]) -> set[str]:
    """Names of all parameters but the first."""
    _, *parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
