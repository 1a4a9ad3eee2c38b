"""How many batches, or cell types, does a cell effectively find around it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import check_names
from fedscgen.metrics._extra import require_scib_metrics
from fedscgen.metrics._neighbors import check_neighbors_and_distances

if TYPE_CHECKING:
    import numpy.typing as npt


def lisi_per_cell(neighbors: npt.ArrayLike, distances: npt.ArrayLike, groups: npt.ArrayLike) -> np.ndarray:
    """Local inverse Simpson index (LISI) of each cell, by ``scib_metrics.lisi_knn`` (Korsunsky et al. 2019).

    Parameters
    ----------
    neighbors, distances
        Positions and distances of each cell's neighbours, itself included, shape ``(n_cells, n_neighbors)``: see
        :func:`neighbors_and_distances`. scib-metrics takes 90; a third of them is the perplexity.
    groups
        Batch or cell type of each cell, shape ``(n_cells,)``.

    Returns
    -------
    Effective number of groups around each cell, from 1 to the number of groups, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        Fewer than two groups or six neighbours, neighbours that are no positions of cells, distances that are none, a
        missing name, or shapes that don't fit.
    ModuleNotFoundError
        scib-metrics is not installed.
    """
    indices, lengths = check_neighbors_and_distances(neighbors, distances, at_least=6)
    codes = check_names(groups, "group", n_cells=len(indices))
    return _lisi(indices, lengths, codes)


def ilisi(neighbors: npt.ArrayLike, distances: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """Integration LISI (iLISI): ``(median over cells - 1) / (n_batches - 1)``, as ``scib_metrics.ilisi_knn``.

    Parameters
    ----------
    neighbors, distances
        See :func:`lisi_per_cell`.
    batch
        Batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 if half of the cells have all batches around them in equal shares.

    Raises
    ------
    ValueError
        See :func:`lisi_per_cell`, with batches as groups.
    ModuleNotFoundError
        scib-metrics is not installed.
    """
    indices, lengths = check_neighbors_and_distances(neighbors, distances, at_least=6)
    codes = check_names(batch, "batch", n_cells=len(indices))
    return float((np.median(_lisi(indices, lengths, codes)) - 1) / codes.max())


def clisi(neighbors: npt.ArrayLike, distances: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Cell-type LISI (cLISI): ``(n_types - median over cells) / (n_types - 1)``, as ``scib_metrics.clisi_knn``.

    Parameters
    ----------
    neighbors, distances
        See :func:`lisi_per_cell`.
    labels
        Cell type of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 if half of the cells have only their own type around them.

    Raises
    ------
    ValueError
        See :func:`lisi_per_cell`, with types as groups.
    ModuleNotFoundError
        scib-metrics is not installed.
    """
    indices, lengths = check_neighbors_and_distances(neighbors, distances, at_least=6)
    codes = check_names(labels, "label", n_cells=len(indices))
    return float((codes.max() + 1 - np.median(_lisi(indices, lengths, codes))) / codes.max())


def _lisi(indices: np.ndarray, distances: np.ndarray, codes: np.ndarray) -> np.ndarray:
    require_scib_metrics()
    from scib_metrics import lisi_knn
    from scib_metrics.nearest_neighbors import NeighborsResults

    return lisi_knn(NeighborsResults(indices=indices, distances=distances), codes).astype(np.float64)
