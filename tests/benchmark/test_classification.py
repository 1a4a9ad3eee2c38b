"""Cell types of a held-out batch, named by a classifier."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from fedscgen.benchmark import classify

ALL = ["MLP", "k-NN", "k-means"]


@pytest.fixture
def blobs():
    """Three types, far apart; the last third of the cells is held out."""
    rng = np.random.default_rng(0)
    labels = np.tile(["a", "b", "c"], 60)
    means = {"a": (0, 0), "b": (20, 0), "c": (0, 20)}
    embedding = np.array([means[name] for name in labels]) + rng.normal(size=(180, 2))
    return embedding, labels, np.arange(180) >= 120


@pytest.mark.parametrize("classifier", ALL)
def test_types_far_apart_are_told_apart(classifier, blobs):
    assert classify(classifier, *blobs) == {"accuracy": 1.0, "AUC": 1.0}


@pytest.mark.parametrize("classifier", ALL)
def test_shuffled_types_are_guessed(classifier, blobs):
    embedding, labels, held_out = blobs
    values = classify(classifier, embedding, np.random.default_rng(1).permutation(labels), held_out)
    assert 0.1 < values["accuracy"] < 0.6
    assert 0.3 < values["AUC"] < 0.7


def test_neighbours_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    embedding, labels, held_out = rng.normal(size=(200, 5)), rng.choice(list("abc"), 200), np.arange(200) < 50
    embedding += 0.8 * (labels == "a")[:, None]
    scaler = StandardScaler().fit(embedding[~held_out])
    model = KNeighborsClassifier(15).fit(scaler.transform(embedding[~held_out]), labels[~held_out])
    asked, truth = scaler.transform(embedding[held_out]), labels[held_out]
    values = classify("k-NN", embedding, labels, held_out)
    assert values["accuracy"] == pytest.approx(model.score(asked, truth))
    expected = roc_auc_score(truth, model.predict_proba(asked), multi_class="ovr", average="macro")
    assert values["AUC"] == pytest.approx(expected)


def test_a_type_that_was_never_seen_is_never_named(blobs):
    embedding, labels, held_out = blobs
    labels = np.where(held_out & (labels == "c"), "new", labels)
    values = classify("k-NN", embedding, labels, held_out)
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["AUC"] == 1.0


def test_area_is_unknown_where_one_type_is_asked_for(blobs):
    embedding, labels, held_out = blobs
    values = classify("k-NN", embedding, np.where(held_out, "a", labels), held_out)
    assert np.isnan(values["AUC"])


def test_nothing_to_train_on_or_to_ask_is_refused(blobs):
    embedding, labels, held_out = blobs
    with pytest.raises(ValueError, match="0 cells are held out and 3 cell types"):
        classify("k-NN", embedding, labels, np.zeros_like(held_out))
    with pytest.raises(ValueError, match="and 1 cell types are left"):
        classify("k-NN", embedding, np.full(180, "a"), held_out)
    with pytest.raises(ValueError, match="'SVM'"):
        classify("SVM", embedding, labels, held_out)
