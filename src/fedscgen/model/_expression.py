"""Corrected expression: what a shift in latent space changes in a cell's own genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from fedscgen._genes import gene_columns, replace_columns
from fedscgen._rows import row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedscgen._rows import Matrix


class ExpressionChange:
    """How cells' expression follows them in latent space.

    Parameters
    ----------
    model
        It encodes and decodes.
    latent, moved
        Before and after, shape ``(n_cells, n_latent)``.
    genes
        Of the expression; those that the model doesn't know stay as they are.
    denoise, reencode
        As :meth:`fedscgen.model.FedSCGEN.correct` takes them.
    """

    def __init__(
        self, model: Any, latent: np.ndarray, moved: np.ndarray, genes: pd.Index, *, denoise: bool, reencode: bool
    ) -> None:
        self._model, self._latent, self._moved = model, latent, moved
        known = genes.isin(model.genes)
        self._others_known = None if known.all() else known
        self._columns = gene_columns(pd.Index(model.genes), list(genes[known]))
        self.denoise, self.reencode = denoise, reencode
        self._reencoded: list[np.ndarray] = []

    def chunks(self, matrix: Matrix, genes: np.ndarray | None, size: int) -> Iterator[tuple[Matrix, Matrix]]:
        """Yield some cells' expression of these genes, and what becomes of it as float32, until there are no more."""
        for rows, chunk in row_chunks(matrix, size):
            own = chunk if genes is None else chunk[:, genes]
            yield own, self._correct(own, rows)

    def take_reencoded(self, size: int) -> np.ndarray:
        """The decoded cells, encoded once more, ``(n_cells, n_latent)``: by :meth:`chunks`, or else now."""
        for start in range(0, 0 if self._reencoded else len(self._moved), size):
            self._decode(slice(start, start + size))
        return np.concatenate(self._reencoded)

    def _correct(self, own: Matrix, rows: slice) -> Matrix:
        known = self._others_known
        inner = own if known is None else own[:, known]
        decoded = self._decode(rows) if self.denoise or self.reencode else None
        if self.denoise:
            values: Matrix = self._of_genes(decoded)
        else:
            moves = (self._moved[rows] != self._latent[rows]).any(axis=1)
            values = _add_change(inner, moves, self._find_change(rows, moves, decoded))
        return values if known is None else replace_columns(own, np.flatnonzero(known), values)

    def _decode(self, rows: slice) -> np.ndarray:
        decoded: np.ndarray = self._model._decode(self._moved[rows])
        if self.reencode:
            self._reencoded.append(self._model._encode(decoded))
        return decoded

    def _find_change(self, rows: slice, moves: np.ndarray, decoded: np.ndarray | None) -> np.ndarray:
        """What the cells that move would gain, shape ``(n_moving, n_genes)``."""
        before, after = self._latent[rows][moves], self._moved[rows][moves]
        if not len(before):
            return np.empty((0, 0), dtype=np.float32)
        if decoded is None:
            return self._of_genes(self._model._decode_change(before, after))
        return self._of_genes(decoded[moves] - self._model._decode(before))

    def _of_genes(self, decoded: Any) -> np.ndarray:
        chosen: np.ndarray = decoded if self._columns is None else decoded[:, self._columns]
        return chosen


def _add_change(own: Matrix, moves: np.ndarray, change: np.ndarray) -> Matrix:
    """Add its change to each cell that moves: zeros stay zero, and what is above zero falls to zero at most."""
    if not sparse.issparse(own):
        values = np.array(own, dtype=np.float32)
        if moves.any():
            values[moves] = _add(values[moves], change)
        return values
    moved = sparse.csr_matrix(own, dtype=np.float32, copy=True)
    moved.sum_duplicates()  # the change is added once to each entry
    if moves.any():
        cells = np.repeat(np.arange(len(moves)), np.diff(moved.indptr))
        entries = slice(None) if moves.all() else moves[cells]
        places = cells[entries] if moves.all() else (np.cumsum(moves) - 1)[cells[entries]]
        moved.data[entries] = _add(moved.data[entries], change[places, moved.indices[entries]])
    moved.eliminate_zeros()
    return moved


def _add(own: np.ndarray, change: np.ndarray) -> np.ndarray:
    added = own + change
    return np.where(own > 0, np.maximum(added, 0), np.where(own < 0, added, 0))
