import random
import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score

from fedscgen.metrics import isolated_label_f1, neighbors_and_distances

pytest.importorskip("scib_metrics")


@pytest.fixture(scope="module")
def cliques():
    """Three far-apart groups of six cells, all at one distance within: a cluster each, at every resolution below 3."""
    embedding = np.concatenate([np.eye(6) + 100 * shift for shift in range(3)])
    return neighbors_and_distances(embedding, 6)


def test_f1_equals_the_one_by_hand(cliques):
    """Batch x alone holds r, 4 of whose 5 cells are in the first six: 2 * 4 / (5 + 6). Batch y alone holds s: 1."""
    labels = list("rrrraa" + "rbbbba" + "ssssss")
    batch = list("xxxxxy" + "xxyyyx" + "yyyyyy")
    assert isolated_label_f1(*cliques, labels, batch) == pytest.approx((8 / 11 + 1) / 2)


def test_types_held_by_more_batches_do_not_count(cliques):
    """Types a and b, which no cluster is, are held by both batches."""
    labels = list("aaabbb" + "ababab" + "ssssss")
    batch = list("xyxyxy" + "xxyyxx" + "yyyyyy")
    assert isolated_label_f1(*cliques, labels, batch) == pytest.approx(1)


def test_all_types_count_where_every_batch_holds_every_type(cliques):
    """Types a and b have nine cells each, of which six are a cluster: 2 * 6 / (9 + 6)."""
    labels = list("aaaaaa" + "aaabbb" + "bbbbbb")
    batch = list("xy" * 9)
    assert isolated_label_f1(*cliques, labels, batch) == pytest.approx(12 / 15)


def test_f1_equals_that_of_scikit_learn_on_clusters_of_igraph(pbmc, ideal_embedding):
    """The same clusterings, made from the whole matrix; every F1 by scikit-learn."""
    import igraph
    from scib_metrics.nearest_neighbors import NeighborsResults

    labels, batch = np.asarray(pbmc.obs["cell_type"]), np.asarray(pbmc.obs["batch"])
    isolated = [name for name in np.unique(labels) if len(set(batch[labels == name])) == 2]
    assert isolated == ["HSC"]
    for renamed in (labels, np.where(labels == "HSC", "NK", labels)):
        neighbors, distances = neighbors_and_distances(ideal_embedding, 15)
        graph = NeighborsResults(indices=neighbors, distances=distances).knn_graph_connectivities
        network = igraph.Graph.Weighted_Adjacency(sparse.triu(graph), mode="upper")
        wanted = isolated if "HSC" in renamed else np.unique(renamed)
        best = dict.fromkeys(wanted, 0.0)
        for resolution in np.linspace(0.2, 2, 10):
            igraph.set_random_number_generator(random.Random(0))  # noqa: S311  (no secret)
            found = network.community_leiden("modularity", weights="weight", resolution=resolution, n_iterations=-1)
            for name in wanted:
                scores = [f1_score(renamed == name, np.array(found.membership) == one) for one in range(len(found))]
                best[name] = max(best[name], *scores)
        igraph.set_random_number_generator(random)
        expected = np.mean(list(best.values()))
        assert isolated_label_f1(neighbors, distances, renamed, batch) == pytest.approx(expected, abs=1e-9)


def test_igraph_s_random_numbers_are_left_as_they_were(cliques):
    import igraph

    def graph():
        random.seed(3)
        return igraph.Graph.Erdos_Renyi(30, p=0.5).get_edgelist()

    before = graph()
    isolated_label_f1(*cliques, list("abc" * 6), list("xy" * 9))
    assert graph() == before


@pytest.mark.parametrize("package", ["scib_metrics", "igraph"])
def test_a_missing_extra_names_the_pip_command(cliques, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"need {package}: .* pip install \"\.\[benchmark\]\""):
        isolated_label_f1(*cliques, list("abc" * 6), list("xy" * 9))
