"""Does correction move cell types apart that lay closer at every single site?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import UndefinedMetricError, check_embedding, check_names

if TYPE_CHECKING:
    import numpy.typing as npt

_ROUNDING = 1e-6  # of a distance


def type_distance_inflation(
    before: npt.ArrayLike, after: npt.ArrayLike, batch: npt.ArrayLike, labels: npt.ArrayLike, *, min_cells: int = 10
) -> float:
    """Share of pairs of types that lie farther apart after correction than in any batch before (TDI).

    Within one batch no batch effect lies between two types. A distance that exceeds that of every batch therefore has
    been made by the correction, or by batches that were left apart.

    The distance of two types is that of their mean vectors: before correction those of one batch's cells, afterwards
    those of all batches together. Each embedding has its own unit of length, the spread within a group: the root of
    the mean squared distance of a cell from the mean of its type in its batch. Adding one vector to all cells of a
    type in a batch doesn't change it. A method that draws the cells of a type together makes the unit shorter, and
    so moves types apart by this measure, too.

    Parameters
    ----------
    before, after
        The uncorrected and the corrected embedding, shape ``(n_cells, n_dimensions)``. Noise in further dimensions
        makes the unit longer: where both are of principal components, take as many of each.
    batch, labels
        Batch and cell type of each cell, shape ``(n_cells,)``.
    min_cells
        Types with fewer cells in a batch aren't compared there; means of fewer are noise.

    Returns
    -------
    0 to 1; 0 is best.

    Raises
    ------
    ValueError
        No batch holds two types with so many cells, all cells lie on the means of their groups, a missing name, shapes
        that don't fit, or values not finite.
    """
    arrays = [check_embedding(each).astype(np.float64) for each in (before, after)]
    n_cells = len(arrays[0])
    if len(arrays[1]) != n_cells:
        raise ValueError(f"the embedding before has {n_cells} cells and the one after {len(arrays[1])}: pass the same")
    batches = check_names(batch, "batch", n_cells=n_cells, at_least=1)
    types = check_names(labels, "label", n_cells=n_cells)
    n_batches, n_types = batches.max() + 1, types.max() + 1
    groups = batches * n_types + types
    counts = np.bincount(groups, minlength=n_batches * n_types).reshape(n_batches, n_types)
    units = [_spread_within(array, groups) for array in arrays]
    compared = counts >= min_cells
    largest = np.full((n_types, n_types), -np.inf)  # of each pair, before, in any batch
    for own, present in zip(_means(arrays[0], groups, counts.size).reshape(*counts.shape, -1), compared, strict=True):
        distances = np.where(present[:, None] & present, _distances(own), -np.inf)
        largest = np.maximum(largest, distances / units[0])
    pairs = np.triu(largest > -np.inf, k=1)
    if not pairs.any():
        raise UndefinedMetricError(f"no batch holds two types with {min_cells} cells each: there is nothing to compare")
    kept = _distances(_means(arrays[1], types, n_types)) / units[1]
    return float(np.mean(kept[pairs] > largest[pairs] * (1 + _ROUNDING)))


def _means(embedding: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Mean vector of each group, zero for those without cells; shape ``(n_groups, n_dimensions)``."""
    sums = np.zeros((n_groups, embedding.shape[1]))
    np.add.at(sums, groups, embedding)
    return np.asarray(sums / np.maximum(np.bincount(groups, minlength=n_groups), 1)[:, None])


def _distances(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(vectors[:, None] - vectors, axis=-1))


def _spread_within(embedding: np.ndarray, groups: np.ndarray) -> float:
    """Root of the mean squared distance of a cell from the mean of its group."""
    residuals = embedding - _means(embedding, groups, groups.max() + 1)[groups]
    spread = float(np.sqrt((residuals**2).sum(axis=1).mean()))
    if spread == 0:
        raise UndefinedMetricError("all cells lie on the mean of their type in their batch: there is no unit of length")
    return spread
