import numpy as np
import pytest

from fedscgen.metrics import ari, kmeans_clusters, nmi


def test_the_same_partition_scores_one_whatever_its_names():
    labels, clusters = list("aabbcc"), [2, 2, 0, 0, 1, 1]
    assert nmi(labels, clusters) == pytest.approx(1)
    assert ari(labels, clusters) == pytest.approx(1)


def test_a_crossed_partition_scores_by_hand():
    """Clusters say nothing of labels: no information, and Rand below chance: (0 - 2/3) / (2 - 2/3) = -1/2."""
    assert nmi(list("aabb"), [0, 1, 0, 1]) == pytest.approx(0, abs=1e-12)
    assert ari(list("aabb"), [0, 1, 0, 1]) == pytest.approx(-1 / 2)


def test_one_cluster_for_all_scores_zero():
    assert nmi(list("aabb"), [0] * 4) == pytest.approx(0, abs=1e-12)
    assert ari(list("aabb"), [0] * 4) == pytest.approx(0, abs=1e-12)


def test_kmeans_finds_blobs_and_repeats_itself():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 50)
    embedding = 20 * np.eye(4)[truth] + rng.normal(size=(200, 4))
    clusters = kmeans_clusters(embedding, 4, seed=3)
    assert ari(truth, clusters) == 1
    np.testing.assert_array_equal(kmeans_clusters(embedding, 4, seed=3), clusters)


def test_scores_equal_scib_metrics_on_the_same_clusters(equal_types):
    scib_metrics = pytest.importorskip("scib_metrics")
    from scib_metrics.utils import KMeans

    embedding, labels = equal_types.obsm["X_pca"], np.asarray(equal_types.obs["cell_type"])
    clusters = KMeans(len(np.unique(labels))).fit(embedding).labels_
    expected = scib_metrics.nmi_ari_cluster_labels_kmeans(embedding, labels)
    assert nmi(labels, clusters) == pytest.approx(expected["nmi"], abs=1e-9)
    assert ari(labels, clusters) == pytest.approx(expected["ari"], abs=1e-9)


@pytest.mark.parametrize("n_clusters", [0, 5])
def test_impossible_numbers_of_clusters_are_refused(n_clusters):
    with pytest.raises(ValueError, match=f"4 cells can't form {n_clusters} clusters"):
        kmeans_clusters(np.eye(4), n_clusters)


def test_one_label_is_refused():
    with pytest.raises(ValueError, match="all 4 cells have the label 'a'"):
        ari(["a"] * 4, [0, 1, 0, 1])
