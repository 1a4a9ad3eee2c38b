"""How well an embedding mixes batches and keeps cell types apart. One metric a function: arrays in, float out.

All are scaled as in scib-metrics (Luecken et al. 2022), where higher is better and 1 is best.
"""

from fedscgen.benchmark.metrics._agreement import ari, kmeans_clusters, nmi
from fedscgen.benchmark.metrics._graph_connectivity import graph_connectivity, nearest_neighbors
from fedscgen.benchmark.metrics._silhouette import silhouette_batch, silhouette_label
from fedscgen.benchmark.metrics._table import BATCH_CORRECTION, BIO_CONSERVATION, integration_metrics, metrics_table

__all__ = [
    "BATCH_CORRECTION",
    "BIO_CONSERVATION",
    "ari",
    "graph_connectivity",
    "integration_metrics",
    "kmeans_clusters",
    "metrics_table",
    "nearest_neighbors",
    "nmi",
    "silhouette_batch",
    "silhouette_label",
]
