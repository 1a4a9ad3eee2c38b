"""How well an embedding mixes batches and keeps cell types apart. Each metric is one function: arrays in, float out.

All are scaled as in scib-metrics (Luecken et al. 2022), where higher is better and 1 is best. Only
:func:`lisi_per_cell` counts groups, and :func:`type_distance_inflation`, :func:`halves_accuracy`,
:func:`n_different_genes` and :func:`count_invented_genes` say what a correction has invented. The latter and
:func:`expression_conservation` measure corrected expression instead of an embedding. :func:`register_metric` adds a
metric of your own.
"""

from fedscgen.metrics._agreement import ari, kmeans_clusters, nmi
from fedscgen.metrics._all import ALL_METRICS, METRIC_GROUPS, SCIB_GROUPS, all_metrics
from fedscgen.metrics._checks import UndefinedMetricError
from fedscgen.metrics._entropy_of_batch_mixing import entropy_of_batch_mixing
from fedscgen.metrics._expression_conservation import expression_conservation
from fedscgen.metrics._graph import weigh_neighbors
from fedscgen.metrics._graph_connectivity import graph_connectivity
from fedscgen.metrics._invented_genes import count_invented_genes
from fedscgen.metrics._isolated_label_f1 import isolated_label_f1
from fedscgen.metrics._kbet import kbet
from fedscgen.metrics._knn_accuracy import knn_accuracy
from fedscgen.metrics._lisi import clisi, ilisi, lisi_per_cell
from fedscgen.metrics._metric import EmbeddedCells, Metric, MetricGroup, list_metrics, register_metric
from fedscgen.metrics._neighbors import nearest_neighbors, neighbors_and_distances
from fedscgen.metrics._pcr_comparison import pcr_comparison
from fedscgen.metrics._random_halves import halves_accuracy, n_different_genes
from fedscgen.metrics._silhouette import bras, isolated_label_asw, silhouette_batch, silhouette_label
from fedscgen.metrics._table import BATCH_CORRECTION, BIO_CONSERVATION, integration_metrics, metrics_table
from fedscgen.metrics._type_distances import type_distance_inflation

__all__ = [
    "ALL_METRICS",
    "BATCH_CORRECTION",
    "BIO_CONSERVATION",
    "METRIC_GROUPS",
    "SCIB_GROUPS",
    "EmbeddedCells",
    "Metric",
    "MetricGroup",
    "UndefinedMetricError",
    "all_metrics",
    "ari",
    "bras",
    "clisi",
    "count_invented_genes",
    "entropy_of_batch_mixing",
    "expression_conservation",
    "graph_connectivity",
    "halves_accuracy",
    "ilisi",
    "integration_metrics",
    "isolated_label_asw",
    "isolated_label_f1",
    "kbet",
    "kmeans_clusters",
    "knn_accuracy",
    "lisi_per_cell",
    "list_metrics",
    "metrics_table",
    "n_different_genes",
    "nearest_neighbors",
    "neighbors_and_distances",
    "nmi",
    "pcr_comparison",
    "register_metric",
    "silhouette_batch",
    "silhouette_label",
    "type_distance_inflation",
    "weigh_neighbors",
]
