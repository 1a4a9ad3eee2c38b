"""Which cell type a latent vector belongs to: linear discriminant analysis from sums over sites. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from fedscgen._types import NamedArrays

_DIAGONAL_CELLS = 10.0  # as many cells' weight has the diagonal in the covariance within types
_FEWEST_OTHERS = 0.02  # share of cells that may be of no known type, at least
_TINY = 1e-6


@dataclass(frozen=True)
class Classifier:
    """Normal distributions of latent vectors, once batch effects are gone.

    One per cell type, all with the covariance within types (linear discriminant analysis), and a wide one of all cells,
    which holds those of no type that the federation knows.

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
    """

    means: np.ndarray
    precision: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    shares: np.ndarray

    @classmethod
    def from_sums(cls, sums: Mapping[str, np.ndarray]) -> Self:
        """Estimate from the sums over sites of what :func:`label_moments` gives."""
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
        named = _log_normal(vectors, self.means, self.precision)
        other = _log_normal(vectors, self.center[None], self.spread)
        with np.errstate(divide="ignore"):
            densities: np.ndarray = np.concatenate([named, other], axis=1) + np.log(self.shares)
        return densities

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {name: array.tolist() for name, array in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        arrays = {name: np.asarray(content[name], dtype=np.float64) for name in cls.__dataclass_fields__}
        arrays["means"] = arrays["means"].reshape(-1, len(arrays["center"]))
        return cls(**arrays)


def label_moments(vectors: np.ndarray, evidence: np.ndarray, n_others: int) -> NamedArrays:
    """One batch's part in a :class:`Classifier`.

    Parameters
    ----------
    vectors
        Latent vectors, without the batch's effect as far as it is known, shape ``(n_cells, n_latent)``.
    evidence
        How much each cell tells of each type, shape ``(n_cells, n_types)``.
    n_others
        Cells whose label the federation doesn't know.
    """
    moments = {
        "n_cells": np.asarray(float(len(vectors))),
        "sum": vectors.sum(axis=0),
        "products": vectors.T @ vectors,
    }
    if evidence.shape[1]:
        moments |= {
            "label_counts": evidence.sum(axis=0),
            "label_sums": evidence.T @ vectors,
            "label_products": (vectors * evidence.sum(axis=1)[:, None]).T @ vectors,
            "n_others": np.asarray(float(n_others)),
        }
    return moments


def _add_diagonal(scatter: np.ndarray, freedom: float) -> np.ndarray:
    """Covariance, with its own diagonal as some cells' worth of prior knowledge."""
    diagonal = np.maximum(np.diag(scatter) / freedom, _TINY)
    covariance: np.ndarray = (scatter + _DIAGONAL_CELLS * np.diag(diagonal)) / (freedom + _DIAGONAL_CELLS)
    return covariance


def _log_normal(vectors: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Log densities ``(n_cells, n_means)`` of normal distributions with one precision, up to a common constant."""
    root = np.linalg.cholesky(precision)  # precision = root root'
    cells, centres = vectors @ root, means @ root
    squares = (cells**2).sum(axis=1)[:, None] - 2 * cells @ centres.T + (centres**2).sum(axis=1)
    densities: np.ndarray = np.log(np.diag(root)).sum() - 0.5 * squares
    return densities
