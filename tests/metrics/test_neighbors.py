import numpy as np
import pytest

from fedscgen.metrics import isolated_label_f1, nearest_neighbors, neighbors_and_distances

NEIGHBORS = np.array([[0, 1], [1, 0]])


def test_neighbours_are_the_nearest_cells_themselves_first():
    neighbors = nearest_neighbors([[0.0], [1.0], [3.0], [10.0]], n_neighbors=2)
    np.testing.assert_array_equal(neighbors, [[0, 1], [1, 0], [2, 1], [3, 2]])


def test_no_more_neighbours_than_cells():
    assert nearest_neighbors(np.arange(6.0).reshape(3, 2)).shape == (3, 3)


def test_less_than_one_neighbour_is_refused():
    with pytest.raises(ValueError, match="n_neighbors is 0"):
        nearest_neighbors(np.eye(3), n_neighbors=0)


def test_the_first_columns_are_those_of_a_narrower_search(pbmc):
    neighbors, distances = neighbors_and_distances(pbmc.obsm["X_pca"], 90)
    narrow, narrow_distances = neighbors_and_distances(pbmc.obsm["X_pca"], 15)
    np.testing.assert_array_equal(neighbors[:, :15], narrow)
    np.testing.assert_array_equal(distances[:, :15], narrow_distances)


def test_distances_are_euclidean(pbmc):
    embedding = pbmc.obsm["X_pca"].astype(np.float64)
    neighbors, distances = neighbors_and_distances(embedding, 5)
    expected = np.linalg.norm(embedding[neighbors] - embedding[:, None], axis=2)
    np.testing.assert_allclose(distances, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("neighbors", "distances", "message"),
    [
        (NEIGHBORS, [[0.0, 1.0]], r"distances has shape \(1, 2\), but neighbors has \(2, 2\)"),
        (NEIGHBORS, [[0.0, 1.0], [0.0, -1.0]], "no distances"),
        (NEIGHBORS, [[0.0, 1.0], [0.0, np.nan]], "no distances"),
        (NEIGHBORS, [[0, 1], [0, 1]], "no distances .dtype int64"),
        (NEIGHBORS[:, :1], [[0.0], [0.0]], "neighbors has 1 per cell, itself included: this metric needs at least 2"),
    ],
)
def test_distances_that_are_none_are_refused(neighbors, distances, message):
    with pytest.raises(ValueError, match=message):
        isolated_label_f1(neighbors, distances, ["a", "b"], ["x", "y"])
