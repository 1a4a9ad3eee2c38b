import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from fedscgen.metrics import knn_accuracy, nearest_neighbors


def test_accuracy_equals_the_one_by_hand():
    """Cells 0 and 1 are outvoted by b, cells 2 and 3 see two b, cell 4 sees two a: 2 of 5."""
    neighbors = [[0, 1, 2, 3], [1, 0, 2, 3], [2, 3, 4, 0], [3, 2, 4, 0], [4, 0, 1, 2]]
    assert knn_accuracy(neighbors, list("aabbb")) == pytest.approx(2 / 5)


@pytest.mark.parametrize(("a", "b"), [("a", "b"), ("b", "a")])
def test_the_nearest_breaks_a_tie_whatever_the_names(a, b):
    """Cells 0 and 2 have one neighbour of each type, their own first; cells 1 and 3 the other type first."""
    neighbors = [[0, 1, 2], [1, 2, 0], [2, 3, 0], [3, 0, 2]]
    assert knn_accuracy(neighbors, [a, a, b, b]) == pytest.approx(2 / 4)


@pytest.mark.parametrize(("k", "ties"), [(15, False), (4, True)])
def test_accuracy_equals_leave_one_out_of_scikit_learn(equal_types, k, ties):
    embedding, labels = equal_types.obsm["X_pca"], np.asarray(equal_types.obs["cell_type"])
    right, n_ties = [], 0
    for cell in range(len(labels)):
        rest = np.arange(len(labels)) != cell
        classifier = KNeighborsClassifier(k).fit(embedding[rest], labels[rest])
        shares = classifier.predict_proba(embedding[[cell]])[0]
        winners = classifier.classes_[shares == shares.max()]
        around = labels[rest][classifier.kneighbors(embedding[[cell]], return_distance=False)[0]]
        told = around[np.isin(around, winners)][0]
        assert len(winners) > 1 or told == classifier.predict(embedding[[cell]])[0]
        n_ties += len(winners) > 1
        right.append(told == labels[cell])
    assert (n_ties > 0) == ties
    assert np.mean(right) < 1
    assert knn_accuracy(nearest_neighbors(embedding, k + 1), labels) == pytest.approx(np.mean(right), abs=1e-12)


def test_one_label_is_refused():
    with pytest.raises(ValueError, match="all 2 cells have the label 'a'"):
        knn_accuracy([[0, 1], [1, 0]], ["a", "a"])
