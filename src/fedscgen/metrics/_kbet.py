"""Do the neighbourhoods within a cell type hold the batches in its proportions?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import UndefinedMetricError, check_names
from fedscgen.metrics._neighbors import (
    check_neighbors_and_distances,
    connectivities,
    count_groups,
    nearest_neighbors,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from scipy.sparse import csr_matrix

_SIGNIFICANCE = 0.05
_SMALLEST_LABEL = 10
_N_COMPONENTS = 100
_DENSE_CELLS = 500  # up to here it is faster to compute all eigenvectors at once than the largest 100 one after another
_SINGLE_PRECISION = 3e-8  # half its step below 1


def kbet(neighbors: npt.ArrayLike, distances: npt.ArrayLike, labels: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """kBET: mean over types of the share of cells whose neighbourhood a chi-squared test (5 %) accepts as mixed.

    As ``scib_metrics.kbet_per_label`` (Büttner et al. 2019; Luecken et al. 2022, Methods): within each type, UMAP's
    graph is turned into a diffusion map, and the batches among each cell's nearest cells in it (a quarter of the mean
    number of cells in a batch, from 10 to 70, and itself) are held against those of the type. A type of fewer than 10
    cells or of one batch doesn't take part; one that lies in pieces too small to test counts as 0.

    It departs from the reference in three ways, so that the same cells always have the same score. Eigenvectors have a
    fixed start and neighbours are exact, where the reference draws a start and searches approximately. All is in double
    precision, for in single precision the largest eigenvalue may miss 1, and its weight is then millions. And each type
    has up to 100 components of its own, where in the reference a small type lowers the number for all types that follow
    it by name. Where types happen to be named from large to small, both agree.

    Parameters
    ----------
    neighbors, distances
        Positions and distances of each cell's neighbours, itself included, shape ``(n_cells, n_neighbors)``: see
        :func:`neighbors_and_distances`. scib-metrics takes 50.
    labels, batch
        Cell type and batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 if all neighbourhoods are mixed.

    Raises
    ------
    ValueError
        Fewer than two batches, no type that takes part, neighbours that are no positions of cells, distances that are
        none, a missing name, or shapes that don't fit.
    ModuleNotFoundError
        scib-metrics is not installed.
    """
    indices, lengths = check_neighbors_and_distances(neighbors, distances)
    label_codes = check_names(labels, "label", n_cells=len(indices), at_least=1)
    batch_codes = check_names(batch, "batch", n_cells=len(indices))
    graph = connectivities(indices, lengths)
    rates = []
    for label in range(label_codes.max() + 1):
        cells = np.flatnonzero(label_codes == label)
        if len(cells) >= _SMALLEST_LABEL and len(np.unique(batch_codes[cells])) > 1:
            rates.append(_acceptance_rate(graph[cells][:, cells], batch_codes[cells]))
    if not rates:
        raise UndefinedMetricError(
            f"no label has at least {_SMALLEST_LABEL} cells and two batches, so that batches can't be compared within "
            "one: check that labels are spelled alike in all batches"
        )
    return float(np.mean(rates))


def _acceptance_rate(graph: csr_matrix, batch: np.ndarray) -> float:
    """Share of one type's cells whose neighbourhood is mixed; 0 if over a quarter lies in pieces too small to test."""
    from scipy.sparse.csgraph import connected_components

    n_neighbors = int(np.clip(len(batch) / len(np.unique(batch)) // 4, 10, 70))
    n_pieces, piece = connected_components(graph, directed=False)
    if n_pieces > 1:
        large = np.bincount(piece)[piece] >= 3 * n_neighbors
        if large.mean() < 0.75:
            return 0.0
        graph, batch = graph[large][:, large], batch[large]
    return _share_mixed(nearest_neighbors(_diffusion_map(graph), n_neighbors + 1), batch)


def _share_mixed(neighbors: np.ndarray, batch: np.ndarray) -> float:
    """Share of cells whose neighbours hold the batches as all cells do, by a chi-squared test."""
    from scipy.stats import chi2

    present, codes, sizes = np.unique(batch, return_inverse=True, return_counts=True)
    if len(present) == 1:  # the other batches were left out in small pieces: not mixed at all
        return 0.0
    expected = sizes / sizes.sum() * neighbors.shape[1]
    observed = count_groups(codes[neighbors], len(present))  # (n_cells, n_batches)
    statistic = ((observed - expected) ** 2 / expected).sum(axis=1)
    return float(np.mean(chi2.sf(statistic, len(present) - 1) >= _SIGNIFICANCE))


def _diffusion_map(graph: csr_matrix) -> np.ndarray:
    """Coordinates in which Euclidean distance is diffusion distance over all times, shape ``(n_cells, n_components)``.

    Coifman et al. 2005, with the anisotropic normalisation that makes it independent of how densely cells are sampled.
    """
    from scipy.sparse import diags_array

    affinity = graph.astype(np.float64)
    by_density = diags_array(1 / np.asarray(affinity.sum(axis=0)).ravel())
    kernel = by_density @ affinity @ by_density
    by_degree = diags_array(1 / np.sqrt(np.asarray(kernel.sum(axis=0)).ravel()))
    values, vectors = _largest_eigenpairs((by_degree @ kernel @ by_degree).tocsr())
    gap = 1 - values
    return np.asarray(vectors * np.divide(values, gap, out=np.ones_like(values), where=gap > _SINGLE_PRECISION))


def _largest_eigenpairs(matrix: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of largest magnitude, shape ``(n_components,)``, and their vectors as columns."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    n_cells = matrix.shape[0]
    n_components = min(_N_COMPONENTS, n_cells - 1)
    if n_cells > _DENSE_CELLS:
        start = np.random.default_rng(0).uniform(-1, 1, n_cells)
        values, vectors = eigsh(matrix, k=n_components, which="LM", v0=start)
        return values, vectors
    values, vectors = eigh(matrix.toarray())
    largest = np.argsort(-np.abs(values))[:n_components]
    return values[largest], vectors[:, largest]
