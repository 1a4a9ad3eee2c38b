"""Does a clustering find the cell types that few batches hold?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import check_names
from fedscgen.metrics._neighbors import check_neighbors_and_distances, connectivities
from fedscgen.metrics._silhouette import find_isolated

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from scipy.sparse import csr_matrix

_RESOLUTIONS = tuple(step / 5 for step in range(1, 11))  # 0.2 to 2


def isolated_label_f1(
    neighbors: npt.ArrayLike, distances: npt.ArrayLike, labels: npt.ArrayLike, batch: npt.ArrayLike, *, seed: int = 0
) -> float:
    """Isolated-label F1 (ILF1): mean over the isolated types of the best F1 of any cluster at any resolution.

    As ``scib.metrics.isolated_labels_f1`` (Luecken et al. 2022, Methods): Leiden clusterings of UMAP's graph at
    resolutions 0.2, 0.4 .. 2, here by igraph until they no longer improve. Isolated are the types that the fewest
    batches hold, as in ``scib_metrics.isolated_labels``; where every batch holds every type these are all types, and
    scib has no score.

    Parameters
    ----------
    neighbors, distances
        Positions and distances of each cell's neighbours, itself included, shape ``(n_cells, n_neighbors)``: see
        :func:`neighbors_and_distances`. scib takes 15.
    labels, batch
        Cell type and batch of each cell, shape ``(n_cells,)``.
    seed
        Seed of every Leiden clustering.

    Returns
    -------
    Above 0, up to 1: 1 if each isolated type has a cluster of its own.

    Raises
    ------
    ValueError
        Neighbours that are no positions of cells, distances that are none, a missing name, or shapes that don't fit.
    ModuleNotFoundError
        scib-metrics is not installed.
    """
    indices, lengths = check_neighbors_and_distances(neighbors, distances)
    label_codes = check_names(labels, "label", n_cells=len(indices), at_least=1)
    batch_codes = check_names(batch, "batch", n_cells=len(indices), at_least=1)
    isolated = find_isolated(label_codes, batch_codes)
    clusterings = _leiden_clusters(connectivities(indices, lengths), seed)
    best = np.max([_f1_scores(label_codes, clusters)[isolated].max(axis=1) for clusters in clusterings], axis=0)
    return float(best.mean())


def _leiden_clusters(graph: csr_matrix, seed: int) -> Iterator[np.ndarray]:
    """Cluster of each cell, shape ``(n_cells,)``, for each resolution."""
    import igraph
    from scipy import sparse

    edges = sparse.triu(graph, k=1).tocoo()
    network = igraph.Graph(graph.shape[0], np.column_stack([edges.row, edges.col]))
    for resolution in _RESOLUTIONS:
        igraph.set_random_number_generator(random.Random(seed))  # noqa: S311  (no secret)
        try:
            clusters = network.community_leiden(
                objective_function="modularity", weights=edges.data, resolution=resolution, n_iterations=-1
            )
        finally:
            igraph.set_random_number_generator(random)  # igraph has one for all its users: this is its own default
        yield np.asarray(clusters.membership)


def _f1_scores(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """F1 of each type (rows) and cluster (columns): twice what they share over the sum of their sizes."""
    shared = _cross_table(labels, clusters)
    return np.asarray(2 * shared / (shared.sum(axis=1, keepdims=True) + shared.sum(axis=0)))


def _cross_table(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    counts = np.zeros((rows.max() + 1, columns.max() + 1), dtype=int)
    np.add.at(counts, (rows, columns), 1)
    return counts
