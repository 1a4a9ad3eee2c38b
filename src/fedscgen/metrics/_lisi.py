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
    return _measure(neighbors, distances, groups, "group")[0]


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
    index, n_batches = _measure(neighbors, distances, batch, "batch")
    return float((np.median(index) - 1) / (n_batches - 1))


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
    index, n_types = _measure(neighbors, distances, labels, "label")
    return float((n_types - np.median(index)) / (n_types - 1))


def _measure(
    neighbors: npt.ArrayLike, distances: npt.ArrayLike, groups: npt.ArrayLike, what: str
) -> tuple[np.ndarray, int]:
    """The index of each cell, shape ``(n_cells,)``, and the number of groups."""
    indices, lengths = check_neighbors_and_distances(neighbors, distances, at_least=6)
    codes = check_names(groups, what, n_cells=len(indices))
    require_scib_metrics()
    from scib_metrics import lisi_knn
    from scib_metrics.nearest_neighbors import NeighborsResults

    index = lisi_knn(NeighborsResults(indices=indices, distances=lengths), codes)
    return np.asarray(index, dtype=np.float64), int(codes.max()) + 1
