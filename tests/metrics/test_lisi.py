import numpy as np
import pytest

from fedscgen.metrics import clisi, ilisi, lisi_per_cell, neighbors_and_distances

pytest.importorskip("scib_metrics")


@pytest.fixture(scope="module")
def one_spot():
    """Seven cells on one spot: each finds the six others alike around it. Four are of group a, three of b."""
    return np.array([np.roll(np.arange(7), -cell) for cell in range(7)]), np.zeros((7, 7)), list("aaaabbb")


def test_index_equals_the_one_by_hand(one_spot):
    """Around a cell of a: 3 a and 3 b, 1 / (1/4 + 1/4) = 2. Around one of b: 4 a and 2 b, 1 / (4/9 + 1/9) = 9/5."""
    np.testing.assert_allclose(lisi_per_cell(*one_spot), [2] * 4 + [9 / 5] * 3, rtol=1e-6)


def test_the_median_is_scaled_to_one_for_mixed_batches_and_for_types_apart(one_spot):
    assert ilisi(*one_spot) == pytest.approx(1, abs=1e-6)
    assert clisi(*one_spot) == pytest.approx(0, abs=1e-6)


def test_scores_equal_scib_metrics(pbmc, ideal_embedding):
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults

    batch, labels = np.asarray(pbmc.obs["batch"]), np.asarray(pbmc.obs["cell_type"])
    for embedding in (pbmc.obsm["X_pca"], ideal_embedding):
        neighbors, distances = neighbors_and_distances(embedding, 90)
        results = NeighborsResults(indices=neighbors, distances=distances)
        expected = scib_metrics.ilisi_knn(results, batch)
        assert ilisi(neighbors, distances, batch) == pytest.approx(expected, abs=1e-6)
        expected = scib_metrics.clisi_knn(results, labels)
        assert clisi(neighbors, distances, labels) == pytest.approx(expected, abs=1e-6)


def test_every_cell_s_index_lies_between_one_and_the_number_of_groups(pbmc, ideal_embedding):
    per_cell = lisi_per_cell(*neighbors_and_distances(ideal_embedding, 90), pbmc.obs["batch"])
    assert per_cell.shape == (pbmc.n_obs,)
    assert 1 <= per_cell.min() < 1.5 < 2.5 < per_cell.max() <= 3


def test_too_few_neighbours_are_refused():
    with pytest.raises(ValueError, match="neighbors has 5 per cell, itself included: this metric needs at least 6"):
        ilisi(*neighbors_and_distances(np.eye(9), 5), ["x"] * 4 + ["y"] * 5)


def test_one_batch_is_refused(one_spot):
    with pytest.raises(ValueError, match="all 7 cells have the batch 'x'"):
        ilisi(*one_spot[:2], ["x"] * 7)
