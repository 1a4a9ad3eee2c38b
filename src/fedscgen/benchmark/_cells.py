"""The cells that a method is given, the names of what they hold, and what a method gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from anndata import AnnData

    from fedscgen._rows import Matrix

BATCH, LABELS, COUNTS = "batch", "cell_type", "counts"
UNLABELLED = "unlabelled"
"""What ``obs["cell_type"]`` says of a cell whose type a method isn't told."""


@dataclass(frozen=True)
class Cells:
    """What a method is given.

    Parameters
    ----------
    all
        Cells to embed, with ``obs["batch"]`` and ``obs["cell_type"]``; the latter may be :data:`UNLABELLED`.
    train
        Those to train on: all, or those of the batches that are not held out.
    seed
        Seed of all random numbers.
    accelerator
        Where to train, as Lightning names it.
    wants_expression
        Whether corrected expression is asked for too, of methods that have any.
    """

    all: AnnData
    train: AnnData
    seed: int
    accelerator: str = "cpu"
    wants_expression: bool = False

    @property
    def no_label(self) -> str | None:
        """:data:`UNLABELLED` if any cell is, else ``None``."""
        return UNLABELLED if (self.all.obs[LABELS] == UNLABELLED).any() else None


@dataclass(frozen=True)
class Embedded:
    """What a method may return instead of an embedding alone, so that it trains once for all that is asked.

    Parameters
    ----------
    embedding
        All cells, shape ``(n_cells, n_dimensions)``.
    cell_types
        The types that the method itself names, shape ``(n_cells,)``, missing where it names none; ``None`` if it
        names no types. What it says of cells that had a label doesn't count.
    expression
        Corrected expression, shape ``(n_cells, n_genes)``, sparse or dense, where the cells' ``wants_expression`` asks
        for it.
    """

    embedding: np.ndarray
    cell_types: npt.ArrayLike | None = None
    expression: Matrix | None = None
