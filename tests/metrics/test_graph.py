import numpy as np
import pytest

from fedscgen.metrics import neighbors_and_distances, weigh_neighbors


@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
@pytest.mark.parametrize("n_cells", [400, 40, 16, 10, 4])
def test_weights_are_those_of_umap(n_cells):
    from umap.umap_ import fuzzy_simplicial_set

    vectors = np.random.default_rng(0).normal(size=(n_cells, 5)) ** 3
    n_neighbors = min(15, n_cells - 1)
    neighbors, distances = neighbors_and_distances(vectors, n_neighbors)
    weights = weigh_neighbors(neighbors, distances)
    given = {"knn_indices": neighbors, "knn_dists": distances.astype(np.float32)}
    expected = fuzzy_simplicial_set(vectors, n_neighbors, random_state=None, metric="euclidean", **given)[0]
    np.testing.assert_allclose(weights.toarray(), expected.toarray(), atol=1e-6)
    assert (weights != weights.T).nnz == 0


@pytest.mark.filterwarnings("error")
def test_cells_that_coincide_have_weights():
    vectors = np.repeat([[0.0, 0.0], [1.0, 0.0]], 10, axis=0)
    weights = weigh_neighbors(*neighbors_and_distances(vectors, 15))
    assert np.isfinite(weights.data).all()
    assert weights[0].max() == pytest.approx(1.0)
    same = weigh_neighbors(*neighbors_and_distances(np.zeros((20, 2)), 15))
    assert np.isfinite(same.data).all()
