"""Which cell type a latent vector belongs to: linear discriminant analysis from sums over sites. Pure numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._entries import Table, matrix, number, several
from fedscgen._types import MOST_DIMENSIONS, MOST_LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from fedscgen._types import NamedArrays

_DIAGONAL_CELLS = 10.0  # as many cells' weight has the diagonal in the covariance within types
_FEWEST_OTHERS = 1e-4  # share of cells that may be of no known type, at least
_FREEDOM = 10.0  # degrees of freedom of the t distribution of a type's cells: the fewer, the longer the tails
_TINY = 1e-6
_LEAST_LOG = -1e4
_TEMPERATURES = np.geomspace(0.5, 32.0, 25)
_VECTOR = several(number(), MOST_LABELS + 1)
_SQUARE = matrix(MOST_DIMENSIONS, MOST_DIMENSIONS)
_PARTS = Table(
    {
        "means": matrix(MOST_LABELS, MOST_DIMENSIONS),
        "precision": _SQUARE,
        "center": _VECTOR,
        "spread": _SQUARE,
        "shares": _VECTOR,
        "temperature": number(_TINY),
    }
)


@dataclass(frozen=True, eq=False)
class Classifier:
    """Distributions of latent vectors, once batch effects are gone.

    One per cell type, all with the covariance within types (linear discriminant analysis), with the tails of a t
    distribution, since types differ in covariance; and a wide normal one of all cells, which holds those of no type
    that the federation knows.

    Parameters
    ----------
    means
        Of each type, shape ``(n_types, n_latent)``.
    precision
        Inverse of the covariance within types, shape ``(n_latent, n_latent)``.
    center, spread
        Mean, and inverse covariance, of all cells, shapes ``(n_latent,)`` and ``(n_latent, n_latent)``.
    shares
        Expected share of each type among cells without a label, and of those of no known type, ``(n_types + 1,)``.
    temperature
        What differences of log densities are divided by, so that of cells that are called 80 % sure, 80 % are right.
    """

    means: np.ndarray
    precision: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    shares: np.ndarray
    temperature: float = 1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classifier) and all(
            np.array_equal(value, vars(other)[name]) for name, value in vars(self).items()
        )

    @classmethod
    def from_sums(cls, sums: Mapping[str, np.ndarray]) -> Self:
        """Estimate from the sums over sites of labels' moments."""
        n_cells = float(sums["n_cells"])
        center = sums["sum"] / n_cells
        spread = np.linalg.inv(_add_diagonal(sums["products"] - n_cells * np.outer(center, center), n_cells))
        if "label_counts" not in sums:
            return cls(np.empty((0, len(center))), spread, center, spread, np.ones(1))
        counts = sums["label_counts"]
        means = sums["label_sums"] / np.maximum(counts, _TINY)[:, None]
        within = sums["label_products"] - (means * counts[:, None]).T @ means
        freedom = max(counts.sum() - (counts > 0).sum(), 1.0)
        precision = np.linalg.inv(_add_diagonal(within, freedom))
        others = np.maximum(sums["n_others"] / (counts.sum() + sums["n_others"]), _FEWEST_OTHERS)
        shares = np.append((1 - others) * counts / max(counts.sum(), _TINY), others)
        return cls(means, precision, center, spread, shares)

    def log_densities(self, vectors: np.ndarray) -> np.ndarray:
        """Log of share times density of each type and of no known one, ``(n_cells, n_types + 1)``, up to a constant."""
        named = _log_student(vectors, self.means, self.precision)
        other = _log_normal(vectors, self.center[None], self.spread)
        with np.errstate(divide="ignore"):
            densities: np.ndarray = np.concatenate([named, other], axis=1) + np.log(self.shares)
        return densities

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Calibrated probability of each type, and last of no known one, shape ``(n_cells, n_types + 1)``."""
        return normalize(self.log_densities(vectors) / self.temperature)

    def scale(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors in which all directions vary alike within a type; volumes stay, and without types all does.

        Parameters
        ----------
        vectors
            Shape ``(n_cells, n_latent)``.
        """
        if len(self.means) == 0:
            return vectors
        variances, axes = np.linalg.eigh(self.precision)
        logs = np.log(variances)
        scales = np.exp((logs - logs.mean()) / 2)
        scaled: np.ndarray = vectors @ (axes * scales) @ axes.T
        return scaled

    def calibrate(self, log_likelihoods: np.ndarray) -> Classifier:
        """The same with the temperature that labelled cells fit best, given the sums of how likely labels are by each.

        Where no site had enough labelled cells, all sums are zero, and nothing changes.
        """
        if not log_likelihoods.any():
            return self
        return replace(self, temperature=float(_TEMPERATURES[log_likelihoods.argmax()]))

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            It is something else, or its parts don't fit together.
        """
        _PARTS.check(content, "classifier")
        names = ("means", "precision", "center", "spread", "shares")
        arrays = {name: np.asarray(content[name], dtype=np.float64) for name in names}
        if not arrays["means"].size:
            arrays["means"] = arrays["means"].reshape(0, len(arrays["center"]))
        _check_shapes(arrays)
        return cls(**arrays, temperature=float(content["temperature"]))


def _check_shapes(arrays: Mapping[str, np.ndarray]) -> None:
    (n_types, _), n_latent = arrays["means"].shape, len(arrays["center"])
    square = (n_latent, n_latent)
    expected = {"means": (n_types, n_latent), "precision": square, "spread": square, "shares": (n_types + 1,)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"classifier: {name!r} has shape {arrays[name].shape}, expected {shape}")


def label_moments(
    vectors: np.ndarray, evidence: np.ndarray, n_others: int, weights: np.ndarray | None = None
) -> NamedArrays:
    """One batch's part in a :class:`Classifier`.

    Parameters
    ----------
    vectors
        Latent vectors, without the batch's effect as far as it is known, shape ``(n_cells, n_latent)``.
    evidence
        How much each cell tells of each type, shape ``(n_cells, n_types)``.
    n_others
        Cells whose label the federation doesn't know.
    weights
        How much each cell counts in the sums over all, shape ``(n_cells,)``. ``None``: all alike.
    """
    weights = np.ones(len(vectors)) if weights is None else weights
    moments = {
        "n_cells": np.asarray(weights.sum()),
        "sum": weights @ vectors,
        "products": (vectors * weights[:, None]).T @ vectors,
    }
    if evidence.shape[1]:
        moments |= {
            "label_counts": evidence.sum(axis=0),
            "label_sums": evidence.T @ vectors,
            "label_products": (vectors * evidence.sum(axis=1)[:, None]).T @ vectors,
            "n_others": np.asarray(float(n_others)),
        }
    return moments


def try_temperatures(classifier: Classifier, vectors: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Log likelihood of the labels of these cells with each temperature that :meth:`Classifier.calibrate` can choose.

    Parameters
    ----------
    classifier
        What the cells' types are predicted with.
    vectors
        Latent vectors without the batch's effect, shape ``(n_cells, n_latent)``.
    types
        Positions of the cells' types, shape ``(n_cells,)``.
    """
    densities = classifier.log_densities(vectors)
    rows = np.arange(len(types))
    logs = (_log_normalize(densities / temperature)[rows, types] for temperature in _TEMPERATURES)
    return np.array([np.maximum(log, _LEAST_LOG).sum() for log in logs])


def normalize(logs: np.ndarray) -> np.ndarray:
    """Probabilities from logs, by row."""
    probabilities: np.ndarray = np.exp(_log_normalize(logs))
    return probabilities


def _log_normalize(logs: np.ndarray) -> np.ndarray:
    raised = logs - logs.max(axis=1, keepdims=True)
    normalized: np.ndarray = raised - np.log(np.exp(raised).sum(axis=1, keepdims=True))
    return normalized


def _add_diagonal(scatter: np.ndarray, freedom: float) -> np.ndarray:
    """Covariance, with its own diagonal as some cells' worth of prior knowledge."""
    diagonal = np.maximum(np.diag(scatter) / freedom, _TINY)
    covariance: np.ndarray = (scatter + _DIAGONAL_CELLS * np.diag(diagonal)) / (freedom + _DIAGONAL_CELLS)
    return covariance


def _log_normal(vectors: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Log densities ``(n_cells, n_means)`` of normal distributions with one precision, up to a common constant."""
    squares, half_log_det = _mahalanobis(vectors, means, precision)
    densities: np.ndarray = half_log_det - 0.5 * squares
    return densities


def _log_student(vectors: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The same of t distributions with the same covariance, up to the same constant."""
    squares, half_log_det = _mahalanobis(vectors, means, precision)
    half = vectors.shape[1] / 2
    scale = math.lgamma(_FREEDOM / 2 + half) - math.lgamma(_FREEDOM / 2) - half * math.log(_FREEDOM / 2 - 1)
    densities: np.ndarray = scale + half_log_det - (_FREEDOM / 2 + half) * np.log1p(squares / (_FREEDOM - 2))
    return densities


def _mahalanobis(vectors: np.ndarray, means: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, float]:
    """Squared distances in units of the spread, ``(n_cells, n_means)``, and half the precision's log determinant."""
    root = np.linalg.cholesky(precision)  # precision = root root'
    cells, centres = vectors @ root, means @ root
    squares = (cells**2).sum(axis=1)[:, None] - 2 * cells @ centres.T + (centres**2).sum(axis=1)
    return np.maximum(squares, 0.0), float(np.log(np.diag(root)).sum())
