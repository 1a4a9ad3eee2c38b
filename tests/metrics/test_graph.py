import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData

from fedscgen.metrics import neighbors_and_distances, weigh_neighbors


@pytest.mark.parametrize("n_cells", [400, 40, 16, 10, 4])
def test_weights_are_those_of_umap(n_cells):
    vectors = np.random.default_rng(0).normal(size=(n_cells, 5)) ** 3
    n_neighbors = min(15, n_cells - 1)
    cells = AnnData(obsm={"X": vectors}, shape=(n_cells, 0))
    sc.pp.neighbors(cells, n_neighbors, use_rep="X", transformer="sklearn")
    weights = weigh_neighbors(*neighbors_and_distances(vectors, n_neighbors))
    expected = cells.obsp["connectivities"].toarray()
    np.testing.assert_allclose(weights.toarray(), expected, atol=1e-6)
    assert (weights != weights.T).nnz == 0


@pytest.mark.filterwarnings("error")
def test_cells_that_coincide_have_weights():
    vectors = np.repeat([[0.0, 0.0], [1.0, 0.0]], 10, axis=0)
    weights = weigh_neighbors(*neighbors_and_distances(vectors, 15))
    assert np.isfinite(weights.data).all()
    assert weights[0].max() == pytest.approx(1.0)
    same = weigh_neighbors(*neighbors_and_distances(np.zeros((20, 2)), 15))
    assert np.isfinite(same.data).all()
