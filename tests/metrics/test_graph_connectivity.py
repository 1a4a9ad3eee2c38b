import numpy as np
import pytest

from fedscgen.metrics import graph_connectivity, nearest_neighbors


def test_connectivity_is_the_mean_share_of_the_largest_component():
    """Type a: {0, 1, 2} hang together, 3 is alone: 3 / 4. Type b: its two cells point at each other: 1."""
    neighbors = [[0, 1], [1, 2], [2, 0], [3, 0], [4, 5], [5, 4]]
    assert graph_connectivity(neighbors, list("aaaabb")) == pytest.approx((3 / 4 + 1) / 2)


def test_a_path_through_another_type_does_not_connect():
    neighbors = [[0, 1], [1, 2], [2, 0]]
    assert graph_connectivity(neighbors, list("aba")) == pytest.approx((1 / 2 + 1) / 2)


def test_connectivity_falls_when_a_type_is_torn_apart():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(60, 2))
    torn = whole + np.repeat([[0.0], [100.0]], 30, axis=0)
    labels = ["a"] * 60
    assert graph_connectivity(nearest_neighbors(whole), labels) == 1
    assert graph_connectivity(nearest_neighbors(torn), labels) == 0.5


@pytest.mark.parametrize("n_neighbors", [5, 15])
def test_connectivity_equals_scib_metrics_on_the_same_neighbours(pbmc, n_neighbors):
    scib_metrics = pytest.importorskip("scib_metrics")
    from scib_metrics.nearest_neighbors import NeighborsResults

    labels = np.asarray(pbmc.obs["cell_type"])
    neighbors = nearest_neighbors(pbmc.obsm["X_pca"], n_neighbors)
    results = NeighborsResults(indices=neighbors, distances=np.ones(neighbors.shape))
    expected = float(scib_metrics.graph_connectivity(results, labels))
    assert expected < 1
    assert graph_connectivity(neighbors, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("neighbors", "message"),
    [
        ([0, 1], r"not one of shape \(2,\)"),
        ([[0.5], [1.0]], "integer array"),
        ([[0, 2], [1, 0]], "names cells 0 to 2, but the cells are 0 to 1"),
        ([[0, -1], [1, 0]], "names cells -1 to 1"),
    ],
)
def test_neighbours_that_are_no_cells_are_refused(neighbors, message):
    with pytest.raises(ValueError, match=message):
        graph_connectivity(neighbors, ["a", "a"])
