"""From latent vectors and what is common to corrected cells, whatever kind of references that is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedscgen._types import ReferenceKind, References, check_choice
from fedscgen.correction._effects import move_to_landmarks
from fedscgen.correction._landmarks import FEWEST_HOLDERS, LABEL_NOISE, Landmarks, find_landmarks
from fedscgen.correction._moved import Correction, name_apart
from fedscgen.correction._references import (
    NoSharedLabelError,
    Unlabeled,
    apply_shifts,
    choose_references,
    label_stats_of,
    latent_shifts,
    make_no_shared_label_error,
    mean_shifts,
    predict_labels,
)
from fedscgen.correction._sums import LandmarkSums, expect_cells, sum_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._types import LatentShifts

UNKNOWN = "unknown"
_N_NEIGHBORS = 15
_DOUBT = 0.5  # probability of another type from which a label is doubted


def read_references(content: Mapping[str, Any]) -> References | Landmarks:
    """References of either kind, from what their ``to_json`` wrote.

    Parameters
    ----------
    content
        Its ``"kind"`` says which.

    Raises
    ------
    ValueError
        It is of neither kind, or its parts don't fit together.
    """
    if not isinstance(content, Mapping) or "kind" not in content:
        raise ValueError(f"references: {type(content).__name__} has no 'kind'")
    return Landmarks.from_json(content) if content["kind"] == Landmarks.kind else References.from_json(content)


def correct_latent(
    latent: np.ndarray,
    batches: pd.Categorical,
    labels: pd.Categorical,
    references: References | Landmarks,
    *,
    shrink: bool = False,
    unlabeled: Unlabeled | None = None,
    min_confidence: float = 0.5,
) -> Correction:
    """Move cells to where they belong.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    batches, labels
        Each cell's batch and label; a missing label is none.
    references
        Where cells belong.
    shrink, unlabeled
        As :meth:`fedscgen.model.FedSCGEN.correct` takes them; landmarks need neither.
    min_confidence
        A cell without a label is ``"unknown"`` if no type is as probable as this.

    Raises
    ------
    ValueError
        ``shrink`` or ``unlabeled`` is given with landmarks, or is no choice; or the references are of another latent
        space.
    """
    if isinstance(references, Landmarks):
        refuse_options_by_type(shrink=shrink, unlabeled=unlabeled)
        return _move_to_landmarks(latent, batches, labels, references, min_confidence)
    shifts = latent_shifts(label_stats_of(latent, batches, labels), references, shrink=shrink)
    correction = shift_latent(latent, batches, labels, shifts, unlabeled=unlabeled)
    return correction._replace(known=references.labels)


def refuse_options_by_type(*, shrink: bool, unlabeled: Unlabeled | None) -> None:
    """Refuse, where cells move to landmarks, what is for references of each type.

    Parameters
    ----------
    shrink, unlabeled
        As :meth:`fedscgen.model.FedSCGEN.correct` takes them.

    Raises
    ------
    ValueError
        One of them is given; the message names it.
    """
    given = ["shrink=True"] * shrink + [f"unlabeled={unlabeled!r}"] * (unlabeled is not None)
    if given:
        raise ValueError(
            f"{', '.join(given)}: these are for references of each type; cells move to landmarks by one rule, with or "
            "without a label: leave them out, or have references of each type, with "
            "FederationSettings(reference='mean') in a federation, else with "
            "correct(references=model.get_references(kind='mean'))"
        )


def shift_latent(
    latent: np.ndarray,
    batches: pd.Categorical,
    labels: pd.Categorical,
    shifts: LatentShifts,
    *,
    unlabeled: Unlabeled | None = None,
) -> Correction:
    """Add to each cell's latent vector the shift of its batch and type.

    Parameters
    ----------
    latent, batches, labels, unlabeled
        As :func:`correct_latent` takes them.
    shifts
        By batch and cell type.
    """
    unlabeled = unlabeled or "knn"
    check_choice(unlabeled, Unlabeled, "treatment of unlabeled cells")
    types = None
    if unlabeled == "knn":
        codes = predict_labels(latent, batches.codes, labels.codes)
        labels = types = pd.Categorical.from_codes(codes, labels.categories)
    batch_codes, label_codes = _positions(batches, shifts.batches), _positions(labels, shifts.labels)
    shifted = apply_shifts(latent, batch_codes, label_codes, shifts)
    if unlabeled == "mean":
        cells = (labels.codes < 0) & (batch_codes >= 0)
        shifted[cells] += mean_shifts(shifts, batch_codes, label_codes)[batch_codes[cells]]
    return Correction(shifted, shifted, types, known=_labels_with_shift(shifts))


def find_own_references(
    latent: np.ndarray,
    batches: pd.Categorical,
    labels: pd.Categorical,
    *,
    kind: ReferenceKind = "landmarks",
    min_cells: int = 1,
    label_noise: float = LABEL_NOISE,
    seed: int = 0,
) -> References | Landmarks:
    """Where cells of batches that lie in one place belong, as a federation with a site for each batch would find it.

    Parameters
    ----------
    latent, batches, labels
        As :func:`correct_latent` takes them.
    kind
        As :meth:`fedscgen.model.FedSCGEN.get_references` takes it.
    min_cells
        Of labels and landmarks with fewer cells in a batch, that batch tells nothing.
    label_noise
        For landmarks: share of given labels that may be wrong.
    seed
        Of the places where landmarks begin.

    Raises
    ------
    NoSharedLabelError
        No type is in two batches; with landmarks, only if every cell has a label, or if there is one batch alone.

    Warns
    -----
    UserWarning
        No type is in two batches, and landmarks are found without labels, since some cells have none.
    """
    check_choice(kind, ReferenceKind, "kind of reference")
    stats = label_stats_of(latent, batches, labels)
    if kind != "landmarks":
        return choose_references(stats, kind=kind, min_cells=min_cells)
    expected = expect_cells(stats.counts, np.bincount(batches.codes, minlength=len(stats.counts)))
    shared = [labels.categories[i] for i in np.flatnonzero((expected >= min_cells).sum(axis=0) >= FEWEST_HOLDERS)]
    held = np.unique(batches.codes)
    if len(held) < FEWEST_HOLDERS or not shared:
        error = make_no_shared_label_error([str(batches.categories[code]) for code in held], min_cells, kind)
        _refuse_unless_unlabelled(error, labels, n_batches=len(held))
    codes = label_positions(labels, shared)
    parts = [
        LandmarkSums(latent[own], batches.codes[own], codes[own], len(shared), min_cells)
        for own in (batches.codes == batch for batch in held)
    ]
    return find_landmarks(sum_answers(parts), shared, label_noise=label_noise, seed=seed)


def _refuse_unless_unlabelled(error: NoSharedLabelError, labels: pd.Categorical, n_batches: int) -> None:
    """Raise the error where landmarks can't do without shared labels; where labels exist but are of no use, warn."""
    if n_batches < FEWEST_HOLDERS or bool((labels.codes >= 0).all()):
        raise error
    if (labels.codes >= 0).any():
        warn_of_lost_labels(str(error))


def warn_of_lost_labels(why: str) -> None:
    """Warn that cells move without labels though some have one.

    Parameters
    ----------
    why
        The reason and its remedy.
    """
    warnings.warn(f"cells move without labels, and none gets a name: {why}", UserWarning, stacklevel=3)


def label_positions(labels: pd.Categorical, names: Sequence[str]) -> np.ndarray:
    """Each cell's position among these names; their number for another label, -1 for none.

    Parameters
    ----------
    labels
        Each cell's label; a missing one is none.
    names
        Names of cell types.
    """
    positions = _positions(labels, names)
    positions[(positions < 0) & (labels.codes >= 0)] = len(names)
    return positions


def _move_to_landmarks(
    latent: np.ndarray, batches: pd.Categorical, labels: pd.Categorical, landmarks: Landmarks, min_confidence: float
) -> Correction:
    codes = label_positions(labels, landmarks.labels)
    moved = move_to_landmarks(latent, np.asarray(batches.codes), codes, landmarks)
    decodable = moved.latent.astype(np.float32)
    embedding = landmarks.embed(moved.latent).astype(np.float32)
    if not landmarks.labels:
        return Correction(decodable, embedding)
    named = name_cells(moved.guess, landmarks.labels, min_confidence)
    types = np.where(labels.codes >= 0, np.asarray(labels, dtype=object), named)
    with_label = np.flatnonzero((codes >= 0) & (codes < len(landmarks.labels)))
    confidence = moved.guess[:, :-1].max(axis=1)
    confidence[with_label] = moved.guess[with_label, codes[with_label]]
    confidence[codes == len(landmarks.labels)] = np.nan
    conflict = _find_conflicts(embedding, np.asarray(batches.codes), codes, moved.guess)
    return Correction(decodable, embedding, pd.Categorical(types), confidence, conflict, landmarks.labels)


def _labels_with_shift(shifts: LatentShifts) -> tuple[str, ...]:
    known = shifts.shifts.any(axis=-1) if shifts.known is None else shifts.known  # (B, L)
    return tuple(shifts.labels[i] for i in np.flatnonzero(known.any(axis=0)))


def name_no_type(labels: Sequence[str]) -> str:
    """What cells of no known type are called: ``"unknown"``, unless a type has this name.

    Parameters
    ----------
    labels
        Names of the types.
    """
    return name_apart(UNKNOWN, labels)


def name_cells(probabilities: np.ndarray, labels: Sequence[str], min_confidence: float) -> np.ndarray:
    """The most probable type of each cell; :func:`name_no_type` where none is as probable as ``min_confidence``.

    Parameters
    ----------
    probabilities
        Of each type, and last of none that is known, shape ``(n_cells, n_types + 1)``.
    labels
        Names of the types.
    min_confidence
        From 0, with which every cell gets a name, to 1.
    """
    of_types = probabilities[:, :-1]
    best = of_types.argmax(axis=1)
    sure = of_types[np.arange(len(best)), best] >= min_confidence
    named: np.ndarray = np.asarray([*labels, name_no_type(labels)], dtype=object)[np.where(sure, best, len(labels))]
    return named


def _find_conflicts(vectors: np.ndarray, batch_codes: np.ndarray, codes: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Cells whose label the classifier contradicts, and most labelled neighbours in their batch, too."""
    from sklearn.neighbors import NearestNeighbors

    n_types = guess.shape[1] - 1
    best = guess[:, :n_types].argmax(axis=1)
    doubted = (codes >= 0) & (codes < n_types) & (best != codes) & (guess[np.arange(len(best)), best] >= _DOUBT)
    conflict = np.zeros(len(codes), dtype=bool)
    for batch in np.unique(batch_codes[doubted]):
        known = np.flatnonzero((batch_codes == batch) & (codes >= 0))
        asking = np.flatnonzero((batch_codes == batch) & doubted)
        n_neighbors = min(_N_NEIGHBORS + 1, len(known))  # the cell itself is among them
        near = NearestNeighbors(n_neighbors=n_neighbors).fit(vectors[known]).kneighbors(vectors[asking])[1]
        agreeing = (codes[known[near]] == codes[asking][:, None]).sum(axis=1) - 1
        conflict[asking] = agreeing < (n_neighbors - 1) / 2
    return conflict


def _positions(cells: pd.Categorical, names: Sequence[str]) -> np.ndarray:
    """Position of each cell's batch or type among these names; -1 where they lack it."""
    codes: np.ndarray = cells.set_categories(list(names)).codes.astype(int)
    return codes
