import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fedscgen.metrics import entropy_of_batch_mixing, nearest_neighbors


def entropies(embedding, batch):
    """Entropy of the batches among the 50 others that are nearest to each cell, one cell at a time."""
    others = NearestNeighbors(n_neighbors=50).fit(embedding).kneighbors(return_distance=False)
    names, found = np.unique(batch), []
    for row in others:
        shares = np.array([np.mean(batch[row] == name) for name in names])
        found.append(-sum(share * np.log(share) for share in shares if share > 0) / np.log(len(names)))
    return np.array(found)


def test_entropy_equals_the_one_by_hand():
    """Cells 0, 1 and 6 see two of each batch (1), cells 2, 4 and 5 see one batch (0), cell 3 three to one (0.811)."""
    batch = ["x", "x", "y", "y", "y", "x", "y"]
    neighbors = [[0, 1, 5, 2, 3], [1, 0, 5, 2, 3], [2, 3, 4, 6, 3], [3, 2, 4, 6, 0], [4, 2, 3, 6, 2]]
    neighbors += [[5, 0, 1, 0, 1], [6, 0, 1, 2, 3]]
    three_to_one = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert three_to_one == pytest.approx(0.811, abs=1e-3)
    expected = (1 + 1 + 0 + three_to_one + 0 + 0 + 1) / 7
    assert entropy_of_batch_mixing(neighbors, batch) == pytest.approx(expected)


def test_entropy_equals_that_of_one_cell_at_a_time(pbmc):
    embedding, batch = pbmc.obsm["X_pca"], np.asarray(pbmc.obs["batch"])
    expected = entropies(embedding, batch).mean()
    assert entropy_of_batch_mixing(nearest_neighbors(embedding, 51), batch) == pytest.approx(expected, abs=1e-12)


def test_entropy_is_what_pools_of_cells_expect(pbmc):
    """scArches draws 50 pools of 100 cells with replacement and takes the mean of their means."""
    embedding, batch = pbmc.obsm["X_pca"], np.asarray(pbmc.obs["batch"])
    pools = np.random.default_rng(0).choice(entropies(embedding, batch), (50, 100)).mean(axis=1)
    standard_error = pools.std(ddof=1) / np.sqrt(len(pools))
    difference = entropy_of_batch_mixing(nearest_neighbors(embedding, 51), batch) - pools.mean()
    assert abs(difference) < 2 * standard_error


def test_cells_on_one_spot_do_not_count_themselves():
    """Six doubles: whichever of them a search of three lists, two others remain of each."""
    neighbors = nearest_neighbors(np.zeros((6, 2)), 3)
    assert any(cell not in row for cell, row in enumerate(neighbors))
    batch = ["x", "x", "x", "x", "x", "y"]
    others = [[near for near in row if near != cell][:2] for cell, row in enumerate(neighbors)]
    expected = np.mean([len({batch[near] for near in row}) == 2 for row in others])
    assert entropy_of_batch_mixing(neighbors, batch) == pytest.approx(expected)


def test_a_cell_alone_is_refused():
    with pytest.raises(ValueError, match="needs at least 2, so ask nearest_neighbors for more"):
        entropy_of_batch_mixing([[0], [1]], ["x", "y"])


def test_one_batch_is_refused():
    with pytest.raises(ValueError, match="all 2 cells have the batch 'x'"):
        entropy_of_batch_mixing([[0, 1], [1, 0]], ["x", "x"])
