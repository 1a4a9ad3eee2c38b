"""Nearest neighbours, the graph that UMAP makes of them, and who is among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import check_embedding
from fedscgen.metrics._extra import require_scib_metrics
from fedscgen.metrics._graph import weigh_neighbors

if TYPE_CHECKING:
    import numpy.typing as npt
    from scipy.sparse import csr_matrix


def nearest_neighbors(embedding: npt.ArrayLike, n_neighbors: int = 15) -> np.ndarray:
    """Find each cell's nearest cells, itself included, by exact search in bounded memory.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``; distances are Euclidean.
    n_neighbors
        Capped at ``n_cells``.

    Returns
    -------
    Positions of the neighbours, nearest first, shape ``(n_cells, n_neighbors)``.

    Raises
    ------
    ValueError
        ``n_neighbors`` is below 1, the shape doesn't fit, or values are not finite.
    """
    return neighbors_and_distances(embedding, n_neighbors)[0]


def neighbors_and_distances(embedding: npt.ArrayLike, n_neighbors: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Find each cell's nearest cells as :func:`nearest_neighbors` does, and how far away they are.

    The first ``n`` columns of both are the ``n`` nearest, so that one search with the most neighbours serves all
    metrics.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``; distances are Euclidean.
    n_neighbors
        Capped at ``n_cells``.

    Returns
    -------
    Positions of the neighbours, nearest first, and their distances; both of shape ``(n_cells, n_neighbors)``.

    Raises
    ------
    ValueError
        ``n_neighbors`` is below 1, the shape doesn't fit, or values are not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    array = check_embedding(embedding)
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors is {n_neighbors}: ask for at least 1")
    search = NearestNeighbors(n_neighbors=min(n_neighbors, len(array))).fit(array)
    distances, neighbors = search.kneighbors(array)
    return neighbors, distances


def check_neighbors(neighbors: npt.ArrayLike, *, at_least: int = 1) -> np.ndarray:
    """Return ``neighbors`` as positions of cells, shape ``(n_cells, n_neighbors)``."""
    indices = np.asarray(neighbors)
    if indices.ndim != 2 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"neighbors is an integer array of shape (n_cells, n_neighbors), not one of shape {indices.shape} and "
            f"dtype {indices.dtype}: see nearest_neighbors"
        )
    if indices.min() < 0 or indices.max() >= len(indices):
        raise ValueError(
            f"neighbors names cells {indices.min()} to {indices.max()}, but the cells are 0 to {len(indices) - 1}: "
            "find the neighbours among the same cells"
        )
    if indices.shape[1] < at_least:
        raise ValueError(
            f"neighbors has {indices.shape[1]} per cell, itself included: this metric needs at least {at_least}, so "
            "ask nearest_neighbors for more"
        )
    return indices


def check_neighbors_and_distances(
    neighbors: npt.ArrayLike, distances: npt.ArrayLike, *, at_least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of cells and their distances, both of shape ``(n_cells, n_neighbors)``."""
    indices, lengths = check_neighbors(neighbors, at_least=at_least), np.asarray(distances)
    if lengths.shape != indices.shape:
        raise ValueError(
            f"distances has shape {lengths.shape}, but neighbors has {indices.shape}: see neighbors_and_distances"
        )
    if not np.issubdtype(lengths.dtype, np.floating) or not np.isfinite(lengths).all() or lengths.min() < 0:
        raise ValueError(
            f"distances holds values that are no distances (dtype {lengths.dtype}; they are finite and not below 0): "
            "see neighbors_and_distances"
        )
    return indices, lengths


def drop_self(indices: np.ndarray) -> np.ndarray:
    """Return the neighbours without the cell itself, shape ``(n_cells, n_neighbors - 1)``.

    Where other cells lie on the same spot, a cell needn't be first in its own list, or in it at all. If it isn't in it,
    the last neighbour is dropped.
    """
    n_cells, n_neighbors = indices.shape
    itself = indices == np.arange(n_cells)[:, None]
    dropped = np.where(itself.any(axis=1), itself.argmax(axis=1), n_neighbors - 1)
    others: np.ndarray = indices[np.arange(n_neighbors) != dropped[:, None]]
    return others.reshape(n_cells, n_neighbors - 1)


def count_groups(groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Count the codes ``0 .. n_groups - 1`` in each row of ``groups``, shape ``(n_rows, n_groups)``."""
    n_rows = len(groups)
    cells = np.arange(n_rows)[:, None] * n_groups + groups
    return np.bincount(cells.ravel(), minlength=n_rows * n_groups).reshape(n_rows, n_groups)


def connectivities(indices: np.ndarray, distances: np.ndarray) -> csr_matrix:
    """Return UMAP's symmetric graph of the neighbours (weights above 0, up to 1), shape ``(n_cells, n_cells)``.

    Needs the extra, as the other metrics of neighbourhoods do, so that a table has all of them or none.
    """
    require_scib_metrics()
    return weigh_neighbors(indices, distances)
