"""Does each cell type hang together in the graph of nearest neighbours?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import check_names
from fedscgen.metrics._neighbors import check_neighbors

if TYPE_CHECKING:
    import numpy.typing as npt


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

    indices = check_neighbors(neighbors)
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
