"""Corrected expression: what a shift in latent space changes in a cell's own genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from fedscgen._data import dense_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fedscgen._data import Matrix


def move_expression(
    matrix: Matrix,
    latent: np.ndarray,
    shifted: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    chunk_size: int,
) -> np.ndarray | sparse.csr_matrix:
    """Add to each cell's expression the difference between its shifted and its own latent vector, decoded.

    Zeros stay zero, and what is above zero falls to zero at most; cells that don't move keep every value.

    Parameters
    ----------
    matrix
        Expression, shape ``(n_cells, n_genes)``; sparse stays sparse.
    latent, shifted
        Before and after, shape ``(n_cells, n_latent)``.
    decode
        From latent vectors to expression of these genes.
    chunk_size
        Cells that are decoded at a time.
    """
    if not sparse.issparse(matrix):
        values = np.array(matrix, dtype=np.float32)
        for rows, change in _changes(latent, shifted, decode, chunk_size):
            values[rows] = _add_change(values[rows], change)
        return values
    moved = sparse.csr_matrix(matrix, dtype=np.float32, copy=True)
    moved.sum_duplicates()  # the change is added once to each entry
    for rows, change in _changes(latent, shifted, decode, chunk_size):
        starts = moved.indptr[rows.start : rows.stop + 1]
        entries = slice(starts[0], starts[-1])
        cells = np.repeat(np.arange(len(change)), np.diff(starts))
        moved.data[entries] = _add_change(moved.data[entries], change[cells, moved.indices[entries]])
    moved.eliminate_zeros()
    return moved


def _changes(
    latent: np.ndarray, shifted: np.ndarray, decode: Callable[[np.ndarray], np.ndarray], chunk_size: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows and what their shifts change in them; chunks in which no cell moves are left out."""
    for rows, after in dense_chunks(shifted, None, chunk_size):
        before = latent[rows]
        moves = (after != before).any(axis=1)
        if moves.any():
            moved = decode(after[moves]) - decode(before[moves])
            change = np.zeros((len(moves), moved.shape[1]), dtype=np.float32)
            change[moves] = moved
            yield rows, change


def _add_change(own: np.ndarray, change: np.ndarray) -> np.ndarray:
    added = own + change
    return np.where(own > 0, np.maximum(added, 0), np.where(own < 0, added, 0))
