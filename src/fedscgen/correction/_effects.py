"""A batch's own part: how far it lies from the landmarks, and its cells without that. Pure numpy.

What is here stays at the site, but for the sums that :class:`LandmarkSums` makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedscgen.correction._classifier import label_moments, normalize, try_temperatures
from fedscgen.correction._references import check_latent_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedscgen._types import NamedArrays
    from fedscgen.correction._landmarks import Landmarks

_N_STEPS = 3
_N_LAST_STEPS = 6
_SHRINKAGE = 5.0  # cells' worth of prior knowledge that a batch's offset from a landmark is zero
_SHRINKAGE_OF_SHIFT = 1.0
_DIVERSITY = 2.0  # Harmony's theta
_WIDTH = 0.1  # Harmony's sigma
_DIMENSIONS = 10  # that tell which landmark is near
_UNLABELLED = 0.1  # of a labelled cell's weight in the classifier has one without a label, by what it is believed to be
_CHUNK = 8192  # cells


class Moved(NamedTuple):
    """Cells without their batch's effect.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``, float64.
    belief
        How far each cell is believed to be of each type, and of none that is known, ``(n_cells, n_types + 1)``.
    guess
        The same by the classifier alone, whatever the cells' labels are, calibrated.
    """

    latent: np.ndarray
    belief: np.ndarray
    guess: np.ndarray


class BatchFit:
    """Fits one batch's shift and offsets to given landmarks.

    Ridge regression of the batch's means near each landmark on the landmarks, in turn with the shares of landmarks in
    each cell: its type's, and within a type by soft clustering with a penalty on landmarks of which the batch holds
    more than its part (as in Harmony: Korsunsky et al. 2019).

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    codes
        Each cell's type by its label: a position in the landmarks' labels, their number for a label that they lack, -1
        for none. Shape ``(n_cells,)``.
    landmarks
        What is common.
    n_steps
        Turns.

    Attributes
    ----------
    shift
        Of all cells, shape ``(n_latent,)``.
    offsets
        Of the cells near each landmark, shape ``(n_landmarks, n_latent)``.
    cells
        How many are near each landmark, ``(n_landmarks,)``.
    means
        Their mean latent vectors, ``(n_landmarks, n_latent)``.
    """

    def __init__(self, latent: np.ndarray, codes: np.ndarray, landmarks: Landmarks, n_steps: int = _N_STEPS) -> None:
        self._latent = np.asarray(latent, dtype=np.float64)
        self._codes = codes
        self._landmarks = landmarks
        self._directions = _unit(landmarks.positions[:, :_DIMENSIONS])
        self._penalty = np.zeros(len(landmarks.types))
        self.shift = self._begin()
        self._moved = self._latent - self.shift
        self.offsets = np.zeros_like(landmarks.positions)
        told = (codes >= 0) & (codes < len(landmarks.labels))  # by these, types already lie near where they belong
        for _ in range(n_steps):
            self._take_turn(known_only=not told.any())

    @property
    def weights(self) -> np.ndarray:
        """How much each landmark's mean counts, ``(n_landmarks,)``: one over its variance with an offset's."""
        weights: np.ndarray = self.cells * _SHRINKAGE / (self.cells + _SHRINKAGE)
        return weights

    def result(self) -> Moved:
        """The cells without the batch's effect, and what they are believed to be."""
        return Moved(self._moved, self._believe_all(), self._landmarks.classifier.predict(self._latent - self.shift))

    def moments(self, evidence: np.ndarray, min_cells: int = 1) -> NamedArrays:
        """Sums of the cells without the shift, labelled ones as :func:`weigh_labels` says.

        What is expected to be wrong in labels weighs less, unless it leaves fewer than ``min_cells`` cells' worth of a
        type. Cells without a label tell a little of the types that they are believed to be of, where they are as many.
        What these sums leave of the sums over all cells is nothing, or of as many cells.
        """
        n_types = len(self._landmarks.labels)
        n_others = int((self._codes == n_types).sum())
        belief = self._believe_all()[:, :n_types]
        labelled = (self._codes >= 0)[:, None]
        if self._landmarks.label_noise:
            weighed = np.where(labelled, evidence * belief, evidence)
            left = weighed.sum(axis=0)
            enough = (_worth(weighed) >= min_cells) & (left >= np.minimum(min_cells, evidence.sum(axis=0) / 2))
            evidence = np.where(enough, weighed, evidence)  # with nothing of this site, others' mean would be opened
        free = np.where(labelled, 0.0, 1 - evidence.sum(axis=1, keepdims=True))
        believed = _UNLABELLED * free * belief
        evidence = evidence + np.where(_worth(believed) >= min_cells, believed, 0.0)
        rest = 1 - evidence.sum(axis=1)
        weights = 1 - rest if n_types and _worth(rest) < min_cells else None
        return label_moments(self._latent - self.shift, evidence, n_others, weights)

    def try_temperatures(self, told: np.ndarray) -> np.ndarray:
        """Sums that calibrate the classifier, over the labelled cells that ``told`` marks."""
        return try_temperatures(self._landmarks.classifier, self._latent[told] - self.shift, self._codes[told])

    def _begin(self) -> np.ndarray:
        """The shift by labelled cells alone, with each type's mean as its landmark; zero without any."""
        means = self._landmarks.classifier.means
        counts = np.bincount(self._codes[self._codes >= 0], minlength=len(means) + 1)[: len(means)]
        weights = counts * _SHRINKAGE / (counts + _SHRINKAGE)
        shift = np.zeros(self._latent.shape[1])
        for kind in np.flatnonzero(counts):
            shift += weights[kind] * (self._latent[self._codes == kind].mean(axis=0) - means[kind])
        begin: np.ndarray = shift / (weights.sum() + _SHRINKAGE_OF_SHIFT)
        return begin

    def _take_turn(self, *, known_only: bool) -> None:
        """Fit once more; with ``known_only`` cells without a label are of known types, from which they may lie far."""
        shares = [self._share(rows, known_only) for rows in self._chunks()]
        self.cells = sum(part.sum(axis=0) for part in shares)
        sums = sum(part.T @ self._latent[rows] for part, rows in zip(shares, self._chunks(), strict=True))
        self.means = sums / np.maximum(self.cells, 1e-9)[:, None]
        gaps = self.means - self._landmarks.positions
        placed = self._landmarks.n_cells > 0
        weights = self.weights * placed
        if placed.any():
            self.shift = weights @ gaps / (weights.sum() + _SHRINKAGE_OF_SHIFT)
        self.offsets = (placed * self.cells / (self.cells + _SHRINKAGE))[:, None] * (gaps - self.shift)
        for part, rows in zip(shares, self._chunks(), strict=True):
            self._moved[rows] = self._latent[rows] - self.shift - part @ self.offsets
        self._penalize()

    def _penalize(self) -> None:
        """Make landmarks less likely of which the batch holds more than its part of the type."""
        common = self._landmarks
        if not common.n_cells.any():
            return
        n_types = len(common.labels) + 1
        own, all_ = (np.bincount(common.types, cells, n_types) for cells in (self.cells, common.n_cells))
        expected = (own / np.maximum(all_, 1e-9))[common.types] * common.n_cells
        aim = _DIVERSITY * np.log((expected + 1) / (self.cells + 1))
        self._penalty = (self._penalty + aim) / 2

    def _share(self, rows: slice, known_only: bool) -> np.ndarray:
        """Each landmark's share in each cell, ``(n_cells, n_landmarks)``; they sum to one."""
        belief = self._believe(rows, known_only)
        closeness = 2 / _WIDTH * _unit(self._moved[rows, :_DIMENSIONS]) @ self._directions.T + self._penalty
        shares: np.ndarray = np.empty_like(closeness)
        for kind in np.unique(self._landmarks.types):
            of_type = self._landmarks.types == kind
            shares[:, of_type] = belief[:, [kind]] * normalize(closeness[:, of_type])
        return shares

    def _believe(self, rows: slice, known_only: bool = False) -> np.ndarray:
        """How far each cell is believed to be of each type, and of none that is known."""
        return believe(self._latent[rows] - self.shift, self._codes[rows], self._landmarks, known_only=known_only)

    def _believe_all(self) -> np.ndarray:
        return np.concatenate([self._believe(rows) for rows in self._chunks()])

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, max(len(self._latent), 1), _CHUNK):
            yield slice(start, start + _CHUNK)


def believe(latent: np.ndarray, codes: np.ndarray, landmarks: Landmarks, *, known_only: bool = False) -> np.ndarray:
    """How far cells are of each type: by their label where there is one, and by where they lie.

    Parameters
    ----------
    latent
        Without the batch's shift, shape ``(n_cells, n_latent)``.
    codes
        As :class:`BatchFit` takes them.
    landmarks
        What is common.
    known_only
        Whether cells without a label can only be of a known type.

    Returns
    -------
    Probabilities of each type, and last of none that is known, shape ``(n_cells, n_types + 1)``.
    """
    n_types = len(landmarks.labels)
    labelled = codes >= 0
    belief = np.zeros((len(latent), n_types + 1))
    belief[np.flatnonzero(labelled), codes[labelled]] = 1
    doubted = ~labelled if landmarks.label_noise == 0 else np.ones(len(latent), dtype=bool)
    if n_types == 0:
        return np.ones_like(belief)
    if doubted.any():
        densities = landmarks.classifier.log_densities(latent[doubted])
        if known_only:
            densities[~labelled[doubted], n_types] = -np.inf
        if landmarks.label_noise:
            wrong = landmarks.label_noise / n_types
            trust = np.where(belief[doubted] > 0, 1 - landmarks.label_noise, wrong)
            densities += np.where(labelled[doubted, None], np.log(trust), 0.0)
        belief[doubted] = normalize(densities)
    return belief


def move_to_landmarks(latent: np.ndarray, batch_codes: np.ndarray, codes: np.ndarray, landmarks: Landmarks) -> Moved:
    """Remove each batch's shift and offsets, whether or not it took part in finding the landmarks.

    Parameters
    ----------
    latent, batch_codes, codes
        As :class:`LandmarkSums` takes them.
    landmarks
        What is common.

    Raises
    ------
    ValueError
        The landmarks are of another latent space.
    """
    check_latent_size("landmarks", landmarks.positions.shape[1], latent.shape[1])
    whole = Moved(np.empty(latent.shape), *(np.empty((len(latent), len(landmarks.labels) + 1)) for _ in range(2)))
    for batch in np.unique(batch_codes):
        rows = batch_codes == batch
        fit = BatchFit(latent[rows], codes[rows], landmarks, n_steps=_N_LAST_STEPS)
        for target, part in zip(whole, fit.result(), strict=True):
            target[rows] = part
    return whole


def _worth(weights: np.ndarray) -> np.ndarray:
    """As many cells of one weight make a mean as uncertain; a little more, as rounding may take it away."""
    worth: np.ndarray = weights.sum(axis=0) ** 2 / np.maximum((weights**2).sum(axis=0), 1e-300) * (1 + 1e-9)
    return worth


def _unit(vectors: np.ndarray) -> np.ndarray:
    units: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return units
