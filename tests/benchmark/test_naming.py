import numpy as np
import pytest
from sklearn.metrics import f1_score

from fedscgen.benchmark._naming import name_cells, score_names, score_naming

CENTRES = np.array([[0.0, 0], [9, 0], [0, 9]])


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 150)
    return (
        CENTRES[codes] + rng.normal(scale=0.5, size=(150, 2)),
        np.array(["B", "NK", "T"])[codes],
        rng.random(150) < 0.5,
    )


@pytest.mark.parametrize("namer", ["k-NN", "logistic"])
def test_labels_of_the_cells_that_are_asked_are_not_looked_at(cells, namer):
    embedding, truth, asked = cells
    named = name_cells(namer, embedding, np.where(asked, "unlabelled", truth), asked, seed=0)
    assert (named == truth[asked]).all()


def test_a_single_type_and_few_cells_suffice():
    asked = np.array([False, True, True])
    assert name_cells("logistic", np.eye(3), np.array(["B", "", ""]), asked, seed=0).tolist() == ["B", "B"]
    asked = np.array([False, False, True])
    assert len(name_cells("k-NN", np.eye(3), np.array(["B", "T", ""]), asked, seed=0)) == 1


def test_cells_without_a_name_are_wrong_and_f1_is_that_of_scikit_learn():
    truth, named = np.array(["B", "B", "T", "T"]), np.array(["B", None, "T", "NK"], dtype=object)
    scores = score_names(truth, named)
    assert scores["accuracy"] == 0.5
    expected = f1_score(truth, ["B", "-", "T", "NK"], labels=["B", "T"], average="macro")
    assert scores["macro-F1"] == pytest.approx(expected)


def test_the_better_classifier_counts_where_a_method_has_no_names_of_its_own(cells):
    embedding, truth, asked = cells
    ring = np.concatenate([embedding, [[0.0, 0]]]), np.append(truth, "T"), np.append(asked, True)
    scores = score_naming(*ring[:1], ring[1], ring[1], ring[2])
    assert scores["accuracy"] == max(scores["k-NN accuracy"], scores["logistic accuracy"])
    own = score_naming(embedding, truth, truth, asked, own=np.full(150, None, dtype=object))
    assert own["accuracy"] == 0
    assert own["k-NN accuracy"] == 1


def test_what_can_not_be_done_is_said(cells):
    embedding, truth, _ = cells
    with pytest.raises(ValueError, match="unknown classifier 'SVM'"):
        name_cells("SVM", embedding, truth, np.zeros(150, dtype=bool), seed=0)
    with pytest.raises(ValueError, match="all 150 cells are to be named: none is left to train on"):
        name_cells("k-NN", embedding, truth, np.ones(150, dtype=bool), seed=0)
