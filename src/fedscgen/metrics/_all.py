"""Every metric of the benchmark on one embedding."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._agreement import ari, kmeans_clusters, nmi
from fedscgen.metrics._checks import UndefinedMetricError, check_embedding, check_names
from fedscgen.metrics._entropy_of_batch_mixing import entropy_of_batch_mixing
from fedscgen.metrics._extra import require_scib_metrics
from fedscgen.metrics._graph_connectivity import graph_connectivity
from fedscgen.metrics._isolated_label_f1 import isolated_label_f1
from fedscgen.metrics._kbet import kbet
from fedscgen.metrics._knn_accuracy import knn_accuracy
from fedscgen.metrics._lisi import clisi, ilisi
from fedscgen.metrics._neighbors import neighbors_and_distances
from fedscgen.metrics._pcr_comparison import pcr_comparison
from fedscgen.metrics._silhouette import silhouette_batch, silhouette_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

logger = logging.getLogger(__name__)

ALL_METRICS = ("NMI", "ARI", "GC", "ILF1", "ASW_C", "ASW_B", "kBET", "EBM", "iLISI", "cLISI", "kNN", "PCR")
METRIC_GROUPS: Mapping[str, tuple[str, ...]] = {
    "bio": ("NMI", "ARI", "ILF1", "ASW_C", "cLISI"),
    "batch": ("ASW_B", "GC", "kBET", "iLISI", "PCR"),
}
_WEIGHTS = {"bio": 0.6, "batch": 0.4}


def all_metrics(
    embedding: npt.ArrayLike, batch: npt.ArrayLike, labels: npt.ArrayLike, *, before: npt.ArrayLike, seed: int = 0
) -> dict[str, float]:
    """Measure an embedding by all metrics of the benchmark.

    Each metric takes as many neighbours as the package that it comes from (scib, scib-metrics, scArches). The same
    input gives the same numbers to the last bit. Exact in O(n_cells^2) time and bounded memory.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.
    batch, labels
        Batch and cell type of each cell, shape ``(n_cells,)``.
    before
        The uncorrected embedding of the same cells, shape ``(n_cells, any)``: PCR measures what is gone.
    seed
        Of the k-means starts behind NMI and ARI, and of the Leiden clusterings behind ILF1.

    Returns
    -------
    By name, higher being better: :data:`ALL_METRICS` in order, then the means ``"bio"`` and ``"batch"`` of the two
    :data:`METRIC_GROUPS`, and ``"total"``, 0.6 bio + 0.4 batch (Luecken et al. 2022). A metric that has no value on
    these cells is NaN, says why in the log, and doesn't take part in the means.

    Raises
    ------
    ValueError
        Fewer than two batches or cell types, fewer than six cells, a missing name, shapes that don't fit, or values not
        finite.
    ModuleNotFoundError
        scib-metrics is not installed.
    """
    require_scib_metrics()
    array, uncorrected = check_embedding(embedding), check_embedding(before)
    batch_codes = check_names(batch, "batch", n_cells=len(array))
    label_codes = check_names(labels, "label", n_cells=len(array))
    values = {
        name: _value_or_nan(name, measure)
        for name, measure in _measures(array, batch_codes, label_codes, uncorrected, seed).items()
    }
    means = {group: float(np.nanmean([values[name] for name in names])) for group, names in METRIC_GROUPS.items()}
    return {**values, **means, "total": sum(weight * means[group] for group, weight in _WEIGHTS.items())}


def _measures(
    array: np.ndarray, batch: np.ndarray, labels: np.ndarray, before: np.ndarray, seed: int
) -> dict[str, Callable[[], float]]:
    clusters = kmeans_clusters(array, labels.max() + 1, seed=seed)
    neighbors, distances = neighbors_and_distances(array, 90)  # the first of which are all that the others need
    return {
        "NMI": lambda: nmi(labels, clusters),
        "ARI": lambda: ari(labels, clusters),
        "GC": lambda: graph_connectivity(neighbors[:, :15], labels),
        "ILF1": lambda: isolated_label_f1(neighbors[:, :15], distances[:, :15], labels, batch, seed=seed),
        "ASW_C": lambda: silhouette_label(array, labels),
        "ASW_B": lambda: silhouette_batch(array, labels, batch),
        "kBET": lambda: kbet(neighbors[:, :50], distances[:, :50], labels, batch),
        "EBM": lambda: entropy_of_batch_mixing(neighbors[:, :51], batch),
        "iLISI": lambda: ilisi(neighbors, distances, batch),
        "cLISI": lambda: clisi(neighbors, distances, labels),
        "kNN": lambda: knn_accuracy(neighbors[:, :16], labels),
        "PCR": lambda: pcr_comparison(before, array, batch),
    }


def _value_or_nan(name: str, measure: Callable[[], float]) -> float:
    try:
        return measure()
    except UndefinedMetricError as reason:
        logger.warning("%s has no value here, and is left out of the means: %s", name, reason)
        return float("nan")
