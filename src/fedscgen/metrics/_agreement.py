"""Do clusters that know nothing of cell types find them again?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import check_embedding, check_names

if TYPE_CHECKING:
    import numpy.typing as npt


def kmeans_clusters(embedding: npt.ArrayLike, n_clusters: int, *, seed: int = 0, n_init: int = 10) -> np.ndarray:
    """Cluster cells with k-means (k-means++ starts).

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.
    n_clusters
        As many as there are cell types, where the clusters are to be compared with these.
    seed
        Seed of the starts.
    n_init
        Number of starts; the tightest result is kept. With one start, as in scib-metrics, NMI and ARI move by several
        points from seed to seed.

    Returns
    -------
    Cluster of each cell, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        Fewer cells than clusters, a shape that doesn't fit, or values not finite.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    array = check_embedding(embedding)
    if not 1 <= n_clusters <= len(array):
        raise ValueError(f"{len(array)} cells can't form {n_clusters} clusters: ask for 1 to {len(array)}")
    with threadpool_limits(1, user_api="openmp"):  # several threads add up a centre in no fixed order
        return np.asarray(KMeans(n_clusters, n_init=n_init, random_state=seed).fit_predict(array))


def nmi(labels: npt.ArrayLike, clusters: npt.ArrayLike) -> float:
    """Normalised mutual information of cell types and clusters, arithmetic mean of the entropies as in scib-metrics.

    Parameters
    ----------
    labels, clusters
        Cell type and cluster of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 (independent) to 1 (the same partition).

    Raises
    ------
    ValueError
        Fewer than two types, a missing name, or shapes that don't fit.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_codes(labels, clusters)))


def ari(labels: npt.ArrayLike, clusters: npt.ArrayLike) -> float:
    """Adjusted Rand index of cell types and clusters (Hubert and Arabie 1985), as in scib-metrics.

    Parameters
    ----------
    labels, clusters
        Cell type and cluster of each cell, shape ``(n_cells,)``.

    Returns
    -------
    1 for the same partition, around 0 for independent ones; slightly below 0 for worse than chance.

    Raises
    ------
    ValueError
        Fewer than two types, a missing name, or shapes that don't fit.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_codes(labels, clusters)))


def _codes(labels: npt.ArrayLike, clusters: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    n_cells = len(np.asarray(labels))
    return (
        check_names(labels, "label", n_cells=n_cells),
        check_names(clusters, "cluster", n_cells=n_cells, at_least=1),
    )
