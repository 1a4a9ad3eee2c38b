"""Rows of a matrix, wherever it is: in memory, in a file, or yet to be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata.abc import CSCDataset
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

Matrix = Any
"""Cells x genes: a numpy array, a sparse matrix or array, one of anndata's on disk, of h5py's, zarr's or dask's."""

_ROWS_AT_A_TIME = 4096


def is_in_memory(matrix: Matrix) -> bool:
    """Whether the matrix takes no reading or computing."""
    return isinstance(matrix, np.ndarray) or sparse.issparse(matrix)


def read_rows(matrix: Matrix, rows: slice | np.ndarray) -> Matrix:
    """These rows, in ascending order, in memory: sparse ones stay sparse, all others become an array."""
    chosen = matrix.oindex[rows] if hasattr(matrix, "oindex") else matrix[rows]
    chosen = chosen.compute() if hasattr(chosen, "compute") else chosen
    return in_rows(chosen) if sparse.issparse(chosen) else np.asarray(chosen)


def count_entries(matrix: Matrix) -> int | None:
    """How many values a sparse matrix holds, if it is one and tells."""
    if sparse.issparse(matrix):
        return int(matrix.nnz)
    group = getattr(matrix, "group", None)
    return None if group is None else int(group["indices"].shape[0])


def in_rows(matrix: Matrix) -> Matrix:
    """The same matrix, whose rows can be read one by one: one in columns is converted once, in memory."""
    matrix = matrix.to_memory() if isinstance(matrix, CSCDataset) else matrix
    return matrix.tocsr() if sparse.issparse(matrix) and matrix.format != "csr" else matrix


def row_chunks(matrix: Matrix, size: int = _ROWS_AT_A_TIME) -> Iterator[tuple[slice, Matrix]]:
    """Yield rows and what is in them, some at a time."""
    matrix = in_rows(matrix)
    for start in range(0, matrix.shape[0], size):
        rows = slice(start, min(start + size, matrix.shape[0]))
        yield rows, read_rows(matrix, rows)


def chunks_of(matrix: Matrix, rows: np.ndarray, chunk_size: int) -> Iterator[Matrix]:
    """Yield these rows, in ascending order, some at a time; sparse ones stay sparse."""
    matrix = in_rows(matrix)
    for start in range(0, len(rows), chunk_size):
        yield read_rows(matrix, rows[start : start + chunk_size])


def dense_chunks(
    matrix: Matrix, columns: np.ndarray | None, chunk_size: int, cells: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows and float32 values of shape ``(<= chunk_size, n_columns)``; only a chunk is ever dense.

    Parameters
    ----------
    matrix
        Shape ``(n_cells, n_genes)``.
    columns
        Positions of the genes to take, -1 for zeros; all if ``None``.
    chunk_size
        Cells at a time.
    cells
        Positions of the cells to take, of which the rows that are yielded are positions; all if ``None``.
    """
    matrix = in_rows(matrix)
    n_cells = matrix.shape[0] if cells is None else len(cells)
    for start in range(0, n_cells, chunk_size):
        rows = slice(start, min(start + chunk_size, n_cells))
        chunk = _read_any(matrix, rows if cells is None else cells[rows])
        with np.errstate(over="ignore"):  # the caller sees inf
            yield rows, _take_columns(chunk, columns)


def gather(chunks: Iterator[Matrix], shape: tuple[int, int], n_entries: int | None = None) -> Matrix:
    """Put chunks of rows into one matrix, which no other copy stands beside.

    Parameters
    ----------
    chunks
        Arrays or CSR matrices, all of one kind.
    shape
        Of the whole.
    n_entries
        Entries that sparse chunks have together, at most.
    """
    first: Matrix = next(chunks, np.empty((0, shape[1]), dtype=np.float32))
    if not sparse.issparse(first):
        return _gather_dense(first, chunks, shape)
    if n_entries is None:
        return sparse.vstack([first, *chunks], "csr")
    kind = np.int32 if max(n_entries, *shape) <= np.iinfo(np.int32).max else np.int64
    data, indices = np.empty(n_entries, dtype=first.dtype), np.empty(n_entries, dtype=kind)
    indptr = np.zeros(shape[0] + 1, dtype=kind)
    row, chunk = 0, first
    while chunk is not None:
        entries = slice(indptr[row], indptr[row] + chunk.nnz)
        data[entries], indices[entries] = chunk.data, chunk.indices
        indptr[row + 1 : row + 1 + chunk.shape[0]] = chunk.indptr[1:].astype(kind) + indptr[row]
        row, chunk = row + chunk.shape[0], next(chunks, None)
    for array in (data, indices):
        array.resize(indptr[-1], refcheck=False)  # in place
    return sparse.csr_matrix((data, indices, indptr), shape=shape)


def _gather_dense(first: np.ndarray, chunks: Iterator[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    whole = np.empty(shape, dtype=first.dtype)
    whole[: len(first)] = first
    row = len(first)
    for chunk in chunks:
        whole[row : row + len(chunk)] = chunk
        row += len(chunk)
    return whole


def _read_any(matrix: Matrix, rows: slice | np.ndarray) -> np.ndarray:
    """Rows in any order, as files don't give them, and dense."""
    if isinstance(rows, np.ndarray) and not is_in_memory(matrix):
        ascending, places = np.unique(rows, return_inverse=True)
        chunk = read_rows(matrix, ascending)[places]
    else:
        chunk = read_rows(matrix, rows)
    dense: np.ndarray = chunk.toarray() if sparse.issparse(chunk) else chunk
    return dense


def _take_columns(chunk: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    if columns is None:
        return np.ascontiguousarray(chunk, dtype=np.float32)
    taken = np.ascontiguousarray(chunk[:, columns], dtype=np.float32)
    taken[:, columns < 0] = 0
    return taken
