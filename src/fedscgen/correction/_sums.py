"""What a site answers while landmarks are sought: sums over its cells, never a cell. Pure numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.correction._classifier import label_moments
from fedscgen.correction._effects import BatchFit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from fedscgen._types import NamedArrays
    from fedscgen.correction._landmarks import Landmarks, Question


class LandmarkSums:
    """A site's answers while landmarks are sought: sums over its cells, never a cell.

    Parameters
    ----------
    latent, codes
        As :class:`BatchFit` takes them.
    batch_codes
        Each cell's batch, shape ``(n_cells,)``.
    n_types
        Cell types that the federation knows.
    min_cells
        Of labels with fewer cells in a batch, and of landmarks with fewer at the site, nothing is given.
    """

    def __init__(
        self, latent: np.ndarray, batch_codes: np.ndarray, codes: np.ndarray, n_types: int, min_cells: int = 1
    ) -> None:
        batches = np.unique(batch_codes) if len(batch_codes) else [0]  # without a cell all sums are zero
        self._batches = [(latent[batch_codes == b], codes[batch_codes == b]) for b in batches]
        self._evidence = [weigh_labels(*batch, n_types, min_cells) for batch in self._batches]
        self._n_types = n_types
        self._min_cells = min_cells
        self._last: tuple[Landmarks, list[BatchFit]] | None = None

    def answer(self, question: Question) -> NamedArrays:
        """Sums over the site's cells, by name."""
        if question.landmarks is None:
            return _add(
                [
                    label_moments(np.asarray(latent, dtype=np.float64), evidence, int((codes == self._n_types).sum()))
                    for (latent, codes), evidence in zip(self._batches, self._evidence, strict=True)
                ]
            )
        fits = self._fit(question.landmarks)
        if question.step == "calibration":
            return {"log_likelihoods": self._calibrate(fits)}
        held = sum(fit.cells for fit in fits) >= self._min_cells
        if question.step == "holders":
            return {"holders": held.astype(np.float64)}
        moments = _add(
            [fit.moments(evidence, self._min_cells) for fit, evidence in zip(fits, self._evidence, strict=True)]
        )
        if not question.open:
            return moments
        chosen = np.asarray(question.open)
        means = _add([_landmark_moments(fit) for fit in fits])
        return moments | {name: np.where(_like(held, array), array, 0.0)[chosen] for name, array in means.items()}

    def _calibrate(self, fits: list[BatchFit]) -> np.ndarray:
        """Sums over the labelled cells that tell of their type; zero if these are few."""
        told = [
            np.isin(codes, np.flatnonzero(evidence.sum(axis=0)))
            for (_, codes), evidence in zip(self._batches, self._evidence, strict=True)
        ]
        sums: np.ndarray = np.sum([fit.try_temperatures(cells) for fit, cells in zip(fits, told, strict=True)], axis=0)
        return sums if sum(cells.sum() for cells in told) >= self._min_cells else np.zeros_like(sums)

    def _fit(self, landmarks: Landmarks) -> list[BatchFit]:
        """Each batch's fit; the last one is kept, since two questions are asked about the same landmarks."""
        if self._last is None or self._last[0] != landmarks:
            self._last = landmarks, [BatchFit(latent, codes, landmarks) for latent, codes in self._batches]
        return self._last[1]


def sum_answers(parts: Sequence[LandmarkSums]) -> Callable[[Question], NamedArrays]:
    """What :func:`find_landmarks` asks, where all cells are at hand: the sum over these sites or batches.

    Parameters
    ----------
    parts
        The answers of each.
    """
    return lambda question: _add([part.answer(question) for part in parts])


def weigh_labels(latent: np.ndarray, codes: np.ndarray, n_types: int, min_cells: int) -> np.ndarray:
    """How much each cell of a batch tells of each type, shape ``(n_cells, n_types)``: one where that is its label.

    No mean is to be one of a few cells. A label of fewer than ``min_cells`` cells tells nothing in a batch with labels
    throughout. Where only some cells have one, it counts if at least ``min_cells`` cells are to be expected of the
    type: each of the labelled cells then shares its weight with the nearest ones without a label.

    Parameters
    ----------
    latent, codes
        One batch's, as :class:`BatchFit` takes them.
    n_types
        Cell types that the federation knows.
    min_cells
        Fewest cells in any mean.
    """
    counts = np.bincount(codes[codes >= 0], minlength=n_types + 1)
    expected = expect_cells(counts, len(codes))[:n_types]
    counts = counts[:n_types]
    evidence: np.ndarray = np.eye(n_types + 1)[codes][:, :n_types]
    evidence[codes < 0] = 0
    evidence[:, counts < min_cells] = 0
    for kind in np.flatnonzero((counts > 0) & (counts < min_cells) & (expected >= min_cells)):
        near = np.flatnonzero((codes < 0) | (codes == kind))
        for cell in np.flatnonzero(codes == kind):
            distances = ((latent[near] - latent[cell]) ** 2).sum(axis=1)
            evidence[near[np.argsort(distances)[:min_cells]], kind] += 1 / min_cells
    return evidence


def expect_cells(counts: np.ndarray, n_cells: npt.ArrayLike) -> np.ndarray:
    """How many cells of each type batches are expected to have: the labelled ones, and their part of those without.

    Parameters
    ----------
    counts
        Labelled cells of each type, shape ``(..., n_types)``.
    n_cells
        Cells of each batch, shape ``(...)``.
    """
    labelled = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    expected: np.ndarray = counts * np.asarray(n_cells)[..., None] / labelled
    return expected


def find_few(batch_codes: np.ndarray, codes: np.ndarray, min_cells: int) -> np.ndarray:
    """Cells that no type's sums are of, if they are so few that sums over all, less those, would show them.

    Parameters
    ----------
    batch_codes
        Each cell's batch, shape ``(n_cells,)``.
    codes
        Each cell's type by its label, whether or not others know it, -1 for none. Shape ``(n_cells,)``.
    min_cells
        Fewest cells in any mean.

    Returns
    -------
    Which cells they are, shape ``(n_cells,)``; none if there are ``min_cells`` or more.
    """
    pairs = np.stack([batch_codes, codes], axis=1)
    _, groups, sizes = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    few: np.ndarray = (codes < 0) | (sizes[groups.reshape(-1)] < min_cells)
    return few if few.sum() < min_cells else np.zeros_like(few)


def _landmark_moments(fit: BatchFit) -> NamedArrays:
    return {
        "cells": fit.cells,
        "weights": fit.weights,
        "positions": fit.weights[:, None] * (fit.means - fit.shift),
    }


def _add(parts: list[NamedArrays]) -> NamedArrays:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def _like(mask: np.ndarray, array: np.ndarray) -> np.ndarray:
    return mask.reshape(-1, *[1] * (array.ndim - 1))
