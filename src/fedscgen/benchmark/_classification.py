"""Can a classifier trained on some batches name the cell types of another one, once all are corrected?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import check_choice
from fedscgen.benchmark._spec import Classifier

if TYPE_CHECKING:
    import numpy.typing as npt


def classify(
    classifier: Classifier,
    embedding: npt.ArrayLike,
    labels: npt.ArrayLike,
    held_out: npt.ArrayLike,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Train on the cells that are not held out, and ask for the types of those that are.

    Parameters
    ----------
    classifier
        ``"MLP"``: a perceptron with one hidden layer of 100 units, at most 500 epochs. ``"k-NN"``: 15 nearest
        neighbours. ``"k-means"``: as many clusters as there are types; each gives the types the shares that they have
        among its training cells.
    embedding
        Shape ``(n_cells, n_dimensions)``; it is standardised by the training cells.
    labels
        Cell type of each cell, shape ``(n_cells,)``.
    held_out
        Whether a cell is to be classified, shape ``(n_cells,)``, boolean.
    seed
        Seed of the classifier.

    Returns
    -------
    ``"accuracy"``: share of the held-out cells that are named rightly; a cell of a type that no training cell has can't
    be. ``"AUC"``: area under the ROC curve of each type against all others, mean over the types that both sides have;
    NaN if there is no such type, or no other type among the held-out cells.

    Raises
    ------
    ValueError
        No such classifier, no cell held out, or no more than one type to train on.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    check_choice(classifier, Classifier, "classifier")
    vectors, names, asked = np.asarray(embedding), np.asarray(labels).astype(str), np.asarray(held_out, dtype=bool)
    known = np.unique(names[~asked])
    if not asked.any() or len(known) < 2:
        raise ValueError(
            f"{asked.sum()} cells are held out and {len(known)} cell types are left to train on: at least 1 and 2 are "
            "needed"
        )
    scaler = StandardScaler().fit(vectors[~asked])
    model = _make_classifier(classifier, len(known), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the perceptron has a fixed budget
        model.fit(scaler.transform(vectors[~asked]), np.searchsorted(known, names[~asked]))
    probabilities = model.predict_proba(scaler.transform(vectors[asked]))  # (n_held_out, n_types)
    return {
        "accuracy": float(np.mean(known[probabilities.argmax(axis=1)] == names[asked])),
        "AUC": _area_under_curve(probabilities, known, names[asked]),
    }


def _area_under_curve(probabilities: np.ndarray, known: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(truth == name, probabilities[:, column])
        for column, name in enumerate(known)
        if 0 < np.sum(truth == name) < len(truth)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def _make_classifier(classifier: Classifier, n_types: int, seed: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    if classifier == "MLP":
        return MLPClassifier(random_state=seed, max_iter=500)
    return KNeighborsClassifier(15) if classifier == "k-NN" else _VotingClusters(n_types, seed)


class _VotingClusters:
    """k-means clusters, each with the distribution of types among the training cells in it."""

    def __init__(self, n_types: int, seed: int) -> None:
        self._n_types = n_types
        self._seed = seed

    def fit(self, vectors: np.ndarray, codes: np.ndarray) -> None:
        from sklearn.cluster import KMeans

        self._clusters = KMeans(self._n_types, n_init=10, random_state=self._seed).fit(vectors)
        votes = np.zeros((self._n_types, self._n_types))
        np.add.at(votes, (self._clusters.labels_, codes), 1)
        self._votes = votes / votes.sum(axis=1, keepdims=True)

    def predict_proba(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(self._votes[self._clusters.predict(vectors)])
