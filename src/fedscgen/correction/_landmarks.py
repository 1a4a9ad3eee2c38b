"""Where cells of all sites belong: landmarks in latent space, found by sums over the sites alone. Pure numpy.

A cell's latent vector is ``z = landmark + batch + offset + noise``: the batch's shift moves all of its cells alike, its
offset only those near one landmark. Landmarks are common; shifts and offsets never leave the site. Every landmark
belongs to a cell type, or to the cells without a known type, and each type has about one per thirty cells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from fedscgen._entries import Table, choice, matrix, names, number, several, table, whole
from fedscgen._questions import answer_all
from fedscgen._types import LONGEST_LABEL, MOST_DIMENSIONS, MOST_LABELS
from fedscgen.correction._classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from typing import Self

    from fedscgen._types import NamedArrays

logger = logging.getLogger(__name__)

Step = Literal["labels", "holders", "means", "calibration"]

_CELLS_PER_LANDMARK = 30
_MOST_LANDMARKS = 100
_N_ROUNDS, _N_ROUNDS_WITHOUT_LABELS = 3, 5  # labels tell most of where batches belong to begin with
_MOST_DIMENSIONS = 10  # of an embedding
_TIE = 1e-3  # weight of the cells' variance beside that of landmarks
FEWEST_HOLDERS = 2
LABEL_NOISE = 0.02
"""Share of given labels that may be wrong, if nothing else is known."""
_MOST_STORED = MOST_LABELS + 2 * _MOST_LANDMARKS
_PARTS = Table(
    {
        "kind": choice("landmarks"),
        "labels": names(MOST_LABELS, LONGEST_LABEL),
        "types": several(whole(0, MOST_LABELS), _MOST_STORED),
        "positions": matrix(_MOST_STORED, MOST_DIMENSIONS),
        "n_cells": several(number(0), _MOST_STORED),
        "classifier": table,
        "label_noise": number(0, 1),
    }
)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What is common to all sites. Two are equal if all of their values are.

    Parameters
    ----------
    labels
        Names of the cell types that the federation knows, ``n_types`` long; none if it knows none.
    types
        Position in ``labels`` of each landmark's type, ``n_types`` for those of cells of no known type, shape
        ``(n_landmarks,)``.
    positions
        Shape ``(n_landmarks, n_latent)``.
    n_cells
        Cells near each landmark at all sites, shape ``(n_landmarks,)``; not whole numbers, as cells are shared.
    classifier
        Which type a cell is likely of.
    label_noise
        Share of given labels that may be wrong.
    """

    kind: ClassVar[str] = "landmarks"

    labels: tuple[str, ...]
    types: np.ndarray
    positions: np.ndarray
    n_cells: np.ndarray
    classifier: Classifier
    label_noise: float = 0.0

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Landmarks)
            and (self.labels, self.label_noise) == (other.labels, other.label_noise)
            and all(np.array_equal(vars(self)[name], vars(other)[name]) for name in ("types", "positions", "n_cells"))
            and self.classifier == other.classifier
        )

    def embed(self, latent: np.ndarray) -> np.ndarray:
        """In what neighbours of corrected cells are to be looked for.

        Scaled by :meth:`Classifier.scale`, along the axes on which landmarks differ most, which no batch's effect has a
        part in; axes on which they don't differ come in the order of the cells' own variance.

        Parameters
        ----------
        latent
            Without the batch's effect, shape ``(n_cells, n_latent)``.

        Returns
        -------
        Shape ``(n_cells, 10)``, or fewer dimensions if the latent space has fewer.
        """
        scale = self.classifier.scale
        weights = self.n_cells / max(self.n_cells.sum(), 1.0)
        places = scale(self.positions)
        places = (places - weights @ places) * np.sqrt(weights)[:, None]
        spread = scale(scale(np.linalg.inv(self.classifier.spread)).T)
        _, axes = np.linalg.eigh(places.T @ places + _TIE * spread)
        axes = axes[:, ::-1][:, :_MOST_DIMENSIONS]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        embedded: np.ndarray = scale(latent) @ axes
        return embedded

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "types": self.types.tolist(),
            "positions": self.positions.tolist(),
            "n_cells": self.n_cells.tolist(),
            "classifier": self.classifier.to_json(),
            "label_noise": self.label_noise,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            It is something else, or its parts don't fit together.
        """
        _PARTS.check(content, "landmarks")
        landmarks = cls(
            labels=tuple(content["labels"]),
            types=np.asarray(content["types"], dtype=np.int64),
            positions=np.array(content["positions"], dtype=np.float64, ndmin=2),
            n_cells=np.asarray(content["n_cells"], dtype=np.float64),
            classifier=Classifier.from_json(content["classifier"]),
            label_noise=float(content["label_noise"]),
        )
        landmarks._check()
        return landmarks

    def _check(self) -> None:
        """Refuse parts that don't fit together."""
        n_landmarks, n_types, n_latent = len(self.types), len(self.labels), len(self.classifier.center)
        expected = {"positions": (n_landmarks, n_latent), "n_cells": (n_landmarks,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"landmarks: {name!r} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.classifier.means) != n_types or self.types.max(initial=0) > n_types:
            raise ValueError(f"landmarks: types or classifier don't fit {n_types} cell types")


class NoMoreSumsError(RuntimeError):
    """The sites can't be asked again, such as when one of them is lost whose part is in the sums opened before."""


class Question(NamedTuple):
    """What every site is asked for while landmarks are sought.

    Parameters
    ----------
    step
        ``"labels"``: what a classifier is made of. ``"holders"``: which landmarks the site holds. ``"means"``: where
        the site's cells near each open landmark lie. ``"calibration"``: how well its labels fit what is predicted.
    landmarks
        As they stand; None in the first step.
    open
        Positions of the landmarks of which the means are asked: enough sites hold each.
    """

    step: Step
    landmarks: Landmarks | None = None
    open: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        landmarks = None if self.landmarks is None else self.landmarks.to_json()
        return {"step": self.step, "landmarks": landmarks, "open": list(self.open)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            It is something else, or asks for means of landmarks that aren't there, or twice for one.
        """
        landmarks = None if content["landmarks"] is None else Landmarks.from_json(content["landmarks"])
        chosen = [int(position) for position in content["open"]]
        n_landmarks = 0 if landmarks is None else len(landmarks.types)
        if len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(n_landmarks)):
            raise ValueError(f"the open landmarks aren't each one of {n_landmarks}, and once")
        return cls(content["step"], landmarks, chosen)


def find_landmarks(
    sum_over_sites: Callable[[Question], NamedArrays],
    labels: Sequence[str],
    *,
    label_noise: float = LABEL_NOISE,
    min_holders: int = FEWEST_HOLDERS,
    seed: int = 0,
    n_rounds: int | None = None,
) -> Landmarks:
    """Find where cells of all sites belong, as :func:`seek_landmarks` does.

    Parameters
    ----------
    sum_over_sites
        From a question to the sum over all sites of what :meth:`LandmarkSums.answer` gives there. It is called once,
        then twice a round, and once more at the end.
    labels, label_noise, min_holders, seed, n_rounds
        As :func:`seek_landmarks` takes them.
    """
    search = seek_landmarks(labels, label_noise=label_noise, min_holders=min_holders, seed=seed, n_rounds=n_rounds)
    return answer_all(search, sum_over_sites, passed_on=(NoMoreSumsError,))


def seek_landmarks(
    labels: Sequence[str],
    *,
    label_noise: float = LABEL_NOISE,
    min_holders: int = FEWEST_HOLDERS,
    seed: int = 0,
    n_rounds: int | None = None,
) -> Generator[Question, NamedArrays, Landmarks]:
    """Ask for the sums that tell where cells of all sites belong: once, then twice a round, and once more at the end.

    Parameters
    ----------
    labels
        Names of the cell types that enough sites have labelled cells of; none aligns cells without any label.
    label_noise
        Share of given labels that may be wrong.
    min_holders
        Fewest sites that must hold a landmark before its mean is opened.
    seed
        Of the places where landmarks begin.
    n_rounds
        Rounds. ``None``: three, or five without labels.

    Raises
    ------
    NoMoreSumsError
        It was thrown in before a round was finished. After one, landmarks stay as they are then.
    """
    if n_rounds is None:
        n_rounds = _N_ROUNDS if labels else _N_ROUNDS_WITHOUT_LABELS
    moments = yield Question("labels")
    classifier = Classifier.from_sums(moments)
    landmarks = _place(tuple(labels), classifier, float(moments["n_cells"]), label_noise, seed)
    try:
        for _ in range(n_rounds):
            holders = (yield Question("holders", landmarks))["holders"]
            shared = np.flatnonzero(np.rint(holders) >= min_holders)
            sums = yield Question("means", landmarks, shared.tolist())
            landmarks = _move(landmarks, shared, sums)
        if not landmarks.n_cells.any():
            logger.warning(
                "no place was found that %d sites have cells near: nothing but what labels tell is corrected",
                min_holders,
            )
        if labels:
            likelihoods = (yield Question("calibration", landmarks))["log_likelihoods"]
            return replace(landmarks, classifier=landmarks.classifier.calibrate(likelihoods))
    except NoMoreSumsError:
        if not landmarks.n_cells.any():
            raise
    return landmarks


def _place(labels: tuple[str, ...], classifier: Classifier, n_cells: float, label_noise: float, seed: int) -> Landmarks:
    """Landmarks drawn around each type's mean, in proportion to its cells."""
    expected = classifier.shares * n_cells
    numbers = np.rint(expected / max(_CELLS_PER_LANDMARK, n_cells / _MOST_LANDMARKS)).astype(int)
    numbers = np.maximum(numbers, 1)
    types = np.repeat(np.arange(len(numbers)), numbers)
    named = types < len(labels)
    # the same for each type, so that nothing depends on the order of names, which may be hashed
    drawn = np.random.default_rng(seed).standard_normal((numbers.max(), len(classifier.center)))
    steps = np.concatenate([drawn[:number] for number in numbers])
    positions = np.concatenate([classifier.means, classifier.center[None]])[types]
    several = (numbers > 1)[types]
    for which, precision in ((named, classifier.precision), (~named, classifier.spread)):
        root = np.linalg.cholesky(np.linalg.inv(precision))
        positions[which & several] += steps[which & several] @ root.T
    return Landmarks(labels, types, positions, np.zeros(len(types)), classifier, label_noise)


def _move(landmarks: Landmarks, shared: np.ndarray, sums: NamedArrays) -> Landmarks:
    """Landmarks at the weighted means of what the sites hold near them; those that too few sites hold stay."""
    positions, n_cells = landmarks.positions.copy(), np.zeros(len(landmarks.types))
    if len(shared):
        positions[shared] = sums["positions"] / np.maximum(sums["weights"], 1e-9)[:, None]
        n_cells[shared] = sums["cells"]
    return replace(landmarks, positions=positions, n_cells=n_cells, classifier=Classifier.from_sums(sums))
