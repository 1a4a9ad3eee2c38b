"""Are cells without a label, or with a wrong one, named rightly?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedscgen._types import check_choice

if TYPE_CHECKING:
    import numpy.typing as npt

Namer = Literal["k-NN", "logistic"]
_N_NEIGHBORS = 15


def name_cells(namer: Namer, embedding: np.ndarray, labels: np.ndarray, asked: np.ndarray, *, seed: int) -> np.ndarray:
    """Names of the cells that are asked, by a classifier on the embedding that the others train.

    Parameters
    ----------
    namer
        ``"k-NN"``: 15 nearest neighbours. ``"logistic"``: multinomial logistic regression on the embedding in units of
        the training cells' standard deviations.
    embedding
        Shape ``(n_cells, n_dimensions)``.
    labels
        Types, shape ``(n_cells,)``; those of the cells that are asked aren't looked at.
    asked
        Whether a cell is to be named, shape ``(n_cells,)``, boolean.
    seed
        Seed of the classifier.

    Raises
    ------
    ValueError
        There is no such classifier, or no cell to train on.
    """
    check_choice(namer, Namer, "classifier")
    known = labels[~asked]
    if not len(known):
        raise ValueError(f"all {len(labels)} cells are to be named: none is left to train on")
    if len(np.unique(known)) == 1:
        return np.full(asked.sum(), known[0])
    model = _make_namer(namer, len(known), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of convergence and of settings that are to come
        return np.asarray(model.fit(embedding[~asked], known).predict(embedding[asked]))


def score_names(truth: npt.ArrayLike, named: npt.ArrayLike) -> dict[str, float]:
    """Compare names with the true types.

    Returns
    -------
    ``"accuracy"``: share of cells that are named rightly; a cell without a name isn't. ``"macro-F1"``: the F1 score of
    each true type, mean over them.
    """
    from pandas import isna
    from sklearn.metrics import f1_score

    types, names = np.asarray(truth).astype(str), np.asarray(named, dtype=object)
    names = np.where(isna(names), "", names).astype(str)
    return {
        "accuracy": float(np.mean(types == names)),
        "macro-F1": float(f1_score(types, names, labels=np.unique(types), average="macro", zero_division=0)),
    }


def score_naming(
    embedding: np.ndarray,
    given: np.ndarray,
    truth: np.ndarray,
    asked: np.ndarray,
    *,
    own: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Score the names of the cells that are asked: by the method itself, and by classifiers on its embedding.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.
    given, truth
        Labels as given to the method, of which those of the cells that are asked aren't looked at, and the true ones;
        shape ``(n_cells,)``.
    asked
        Whether a cell is to be named, shape ``(n_cells,)``, boolean.
    own
        The method's own names, shape ``(n_cells,)``; ``None`` if it has none.
    seed
        Seed of the classifiers.

    Returns
    -------
    ``"accuracy"`` and ``"macro-F1"`` of the method's own names or, if it has none, of the more accurate classifier,
    which favours such methods. Then both of each classifier, such as ``"k-NN accuracy"``.
    """
    scores = {
        name: score_names(truth[asked], name_cells(name, embedding, given, asked, seed=seed))
        for name in get_args(Namer)
    }
    best = max(scores.values(), key=lambda each: each["accuracy"])
    first = best if own is None else score_names(truth[asked], own[asked])
    return first | {f"{name} {measure}": value for name, each in scores.items() for measure, value in each.items()}


def _make_namer(namer: Namer, n_known: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if namer == "k-NN":
        return KNeighborsClassifier(min(_N_NEIGHBORS, n_known))
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
