"""Every metric on one embedding."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._agreement import ari, nmi
from fedscgen.metrics._checks import UndefinedMetricError, check_embedding, check_names
from fedscgen.metrics._entropy_of_batch_mixing import entropy_of_batch_mixing
from fedscgen.metrics._extra import require_scib_metrics
from fedscgen.metrics._graph_connectivity import graph_connectivity
from fedscgen.metrics._isolated_label_f1 import isolated_label_f1
from fedscgen.metrics._kbet import kbet
from fedscgen.metrics._knn_accuracy import knn_accuracy
from fedscgen.metrics._lisi import clisi, ilisi
from fedscgen.metrics._metric import EmbeddedCells, Metric, list_metrics, register_metric
from fedscgen.metrics._pcr_comparison import pcr_comparison
from fedscgen.metrics._silhouette import bras, isolated_label_asw, silhouette_batch, silhouette_label
from fedscgen.metrics._type_distances import type_distance_inflation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

logger = logging.getLogger(__name__)

METRIC_GROUPS: Mapping[str, tuple[str, ...]] = {
    "bio": ("NMI", "ARI", "ILF1", "ASW_C", "cLISI"),
    "batch": ("ASW_B", "GC", "kBET", "iLISI", "PCR"),
}
SCIB_GROUPS: Mapping[str, tuple[str, ...]] = {
    "scib bio": ("ILASW", "NMI", "ARI", "ASW_C", "cLISI"),
    "scib batch": ("BRAS", "iLISI", "kBET", "GC", "PCR"),
}
"""The groups as scib-metrics' ``Benchmarker`` has had them since 0.5.10."""
_WEIGHTS = (0.6, 0.4)  # of bio and batch

# each takes as many neighbours as the package that it comes from: scib, scib-metrics or scArches
_OWN: Mapping[str, Metric] = {
    "NMI": Metric(
        lambda cells: nmi(cells.labels, cells.clusters),
        "bio conservation",
        "clusters find the cell types again: information that the two share",
        scored_on="k-means clusters",
    ),
    "ARI": Metric(
        lambda cells: ari(cells.labels, cells.clusters),
        "bio conservation",
        "clusters find the cell types again: pairs of cells that the two place alike; by chance 0",
        scored_on="k-means clusters",
    ),
    "GC": Metric(
        lambda cells: graph_connectivity(cells.neighbors[:, :15], cells.labels),
        "batch correction",
        "cells of one type hang together in the neighbour graph (graph connectivity)",
        scored_on="15 nearest cells",
    ),
    "ILF1": Metric(
        lambda cells: isolated_label_f1(
            cells.neighbors[:, :15], cells.distances[:, :15], cells.labels, cells.batch, seed=cells.seed
        ),
        "bio conservation",
        "types that few batches hold can still be told from the rest by a cluster (isolated-label F1)",
        scored_on="Leiden clusters",
    ),
    "ASW_C": Metric(
        lambda cells: silhouette_label(cells.embedding, cells.labels),
        "bio conservation",
        "different cell types lie apart (silhouette width)",
        scored_on="all distances",
    ),
    "ASW_B": Metric(
        lambda cells: silhouette_batch(cells.embedding, cells.labels, cells.batch),
        "batch correction",
        "cells of one type overlap across batches (silhouette width)",
        scored_on="distances within types",
    ),
    "kBET": Metric(
        lambda cells: kbet(cells.neighbors[:, :50], cells.distances[:, :50], cells.labels, cells.batch),
        "batch correction",
        "neighbourhoods have the batch composition of all cells of that type (share of tests not rejected)",
        scored_on="50 nearest cells, within types",
    ),
    "EBM": Metric(
        lambda cells: entropy_of_batch_mixing(cells.neighbors[:, :51], cells.batch),
        "batch correction",
        "neighbours come from all batches evenly (entropy of batch mixing)",
        scored_on="50 nearest cells",
    ),
    "iLISI": Metric(
        lambda cells: ilisi(cells.neighbors, cells.distances, cells.batch),
        "batch correction",
        "neighbours come from many batches (local inverse Simpson's index)",
        scored_on="90 nearest cells",
    ),
    "cLISI": Metric(
        lambda cells: clisi(cells.neighbors, cells.distances, cells.labels),
        "bio conservation",
        "neighbours are of one cell type (local inverse Simpson's index)",
        scored_on="90 nearest cells",
    ),
    "kNN": Metric(
        lambda cells: knn_accuracy(cells.neighbors[:, :16], cells.labels),
        "bio conservation",
        "the nearest neighbours of a cell tell its type (accuracy)",
        scored_on="15 nearest cells",
    ),
    "PCR": Metric(
        lambda cells: pcr_comparison(cells.before, cells.embedding, cells.batch),
        "batch correction",
        "the batch explains less of the variance than before correction (principal-component regression)",
        scored_on="principal components",
    ),
    "ILASW": Metric(
        lambda cells: isolated_label_asw(cells.embedding, cells.labels, cells.batch),
        "bio conservation",
        "types that few batches hold lie apart from the rest (silhouette width)",
        scored_on="all distances",
    ),
    "BRAS": Metric(
        lambda cells: bras(cells.embedding, cells.labels, cells.batch),
        "batch correction",
        "cells of one type overlap with those of all other batches together (adapted silhouette width)",
        scored_on="distances within types",
    ),
    "TDI": Metric(
        # the uncorrected embedding is of principal components, and noise in further ones would change its unit
        lambda cells: type_distance_inflation(
            cells.before[:, : cells.embedding.shape[1]], cells.embedding, cells.batch, cells.labels
        ),
        "bio conservation",
        "pairs of cell types that lie farther apart than in any batch before correction (share; 0 is best)",
        lower_is_better=True,
        scored_on="means of types",
    ),
}
ALL_METRICS = tuple(_OWN)

for _name, _metric in _OWN.items():
    register_metric(_name, _metric)


def all_metrics(
    embedding: npt.ArrayLike, batch: npt.ArrayLike, labels: npt.ArrayLike, *, before: npt.ArrayLike, seed: int = 0
) -> dict[str, float]:
    """Measure an embedding by all metrics, those that other packages registered among them.

    The same input gives the same numbers to the last bit. Exact in O(n_cells^2) time and bounded memory.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.
    batch, labels
        Batch and cell type of each cell, shape ``(n_cells,)``.
    before
        The uncorrected embedding of the same cells, shape ``(n_cells, any)``: PCR measures what is gone, TDI what has
        grown. TDI takes as many of its first columns as the embedding has.
    seed
        Seed of the k-means starts behind NMI and ARI, and of the Leiden clusterings behind ILF1.

    Returns
    -------
    Numbers by name; higher is better, but for TDI. First :data:`ALL_METRICS` in their order, then what
    :func:`register_metric` added, then the means ``"bio"`` and ``"batch"`` of the two :data:`METRIC_GROUPS`, and
    ``"total"``, 0.6 bio + 0.4 batch (Luecken et al. 2022); then ``"scib bio"``, ``"scib batch"`` and ``"scib total"``,
    the same of :data:`SCIB_GROUPS`: the definition of today's scib-metrics, with BRAS in place of ASW_B and ILASW in
    place of ILF1. A metric that has no value on these cells is NaN, says why in the log, and doesn't take part in the
    means. So is a metric of another package that fails, whatever its error.

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
    cells = EmbeddedCells(array, uncorrected, batch_codes, label_codes, seed)
    values = {name: _value_or_nan(name, metric, cells) for name, metric in list_metrics().items()}
    return {**values, **_weigh(values, METRIC_GROUPS, "total"), **_weigh(values, SCIB_GROUPS, "scib total")}


def _weigh(values: Mapping[str, float], groups: Mapping[str, tuple[str, ...]], total: str) -> dict[str, float]:
    """Means of bio conservation and batch correction, and their weighted sum."""
    means = {group: float(np.nanmean([values[name] for name in names])) for group, names in groups.items()}
    return {**means, total: sum(weight * mean for weight, mean in zip(_WEIGHTS, means.values(), strict=True))}


def _value_or_nan(name: str, metric: Metric, cells: EmbeddedCells) -> float:
    try:
        return float(metric.measure(cells))
    except UndefinedMetricError as reason:
        logger.warning("%s has no value here, and is left out of the means: %s", name, reason)
    except Exception as error:
        if metric is _OWN.get(name):
            raise
        logger.warning("%s, a metric of another package, failed: %s: %s", name, type(error).__name__, error)
    return float("nan")
