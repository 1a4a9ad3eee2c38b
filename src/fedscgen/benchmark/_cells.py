"""The cells that a method is given, and the names of what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData

BATCH, LABELS, COUNTS = "batch", "cell_type", "counts"


@dataclass(frozen=True)
class Cells:
    """What a method is given.

    Parameters
    ----------
    all
        Cells to embed, with ``obs["batch"]`` and ``obs["cell_type"]``.
    train
        Those to train on: all, or those of the batches that are not held out.
    seed
        Seed of all random numbers.
    accelerator
        Where to train, as Lightning names it.
    """

    all: AnnData
    train: AnnData
    seed: int
    accelerator: str = "cpu"
