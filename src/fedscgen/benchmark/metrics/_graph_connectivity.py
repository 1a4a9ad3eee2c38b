"""Does each cell type hang together in the graph of nearest neighbours?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.benchmark.metrics._checks import check_embedding, check_names

if TYPE_CHECKING:
    import numpy.typing as npt


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
    from sklearn.neighbors import NearestNeighbors

    array = check_embedding(embedding)
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors is {n_neighbors}: ask for at least 1")
    search = NearestNeighbors(n_neighbors=min(n_neighbors, len(array))).fit(array)
    return search.kneighbors(array, return_distance=False)


def graph_connectivity(neighbors: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Graph connectivity (GC): mean over types of the share of its cells in its largest connected component.

    As ``scib_metrics.graph_connectivity`` (Luecken et al. 2022, Methods): of each type the subgraph is taken, in which
    an edge runs from a cell to each of its neighbours, and its largest strongly connected component.

    Parameters
    ----------
    neighbors
        Positions of each cell's neighbours, shape ``(n_cells, n_neighbors)``: see :func:`nearest_neighbors`.
    labels
        Cell type of each cell, shape ``(n_cells,)``.

    Returns
    -------
    Above 0, up to 1: 1 if every type hangs together.

    Raises
    ------
    ValueError
        Neighbours that are no positions of cells, a missing label, or shapes that don't fit.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    indices = _check_neighbors(neighbors)
    n_cells, n_neighbors = indices.shape
    codes = check_names(labels, "label", n_cells=n_cells, at_least=1)
    starts = np.arange(0, indices.size + 1, n_neighbors)
    graph = sparse.csr_matrix((np.ones(indices.size), indices.ravel(), starts), shape=(n_cells, n_cells))
    shares = []
    for label in range(codes.max() + 1):
        cells = np.flatnonzero(codes == label)
        _, component = connected_components(graph[cells][:, cells], directed=True, connection="strong")
        shares.append(np.bincount(component).max() / len(cells))
    return float(np.mean(shares))


def _check_neighbors(neighbors: npt.ArrayLike) -> np.ndarray:
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
    return indices
