"""Average silhouette widths: do cells lie nearer to their own group than to the next one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import UndefinedMetricError, check_embedding, check_names

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_WORKING_MEMORY = 128  # MiB of distances held at a time, whatever the number of cells


def silhouette_label(embedding: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Average silhouette width of the cell types (ASW_C): ``(mean of s(i) + 1) / 2``.

    As ``scib_metrics.silhouette_label`` (Luecken et al. 2022, Methods). Runs in O(n_cells^2) time and bounded memory.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``; distances are Euclidean.
    labels
        Cell type of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 for far-apart, compact types, 0.5 for types on top of each other.

    Raises
    ------
    ValueError
        Fewer than two types, as many types as cells, a missing label, shapes that don't fit, or values not finite.
    """
    array = check_embedding(embedding)
    codes = check_names(labels, "label", n_cells=len(array))
    _check_groups(array, codes)
    return float((_silhouette(array, codes).mean() + 1) / 2)


def silhouette_batch(embedding: npt.ArrayLike, labels: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """Average silhouette width of the batches within cell types (ASW_B): mean over types of ``mean of 1 - |s(i)|``.

    As ``scib_metrics.silhouette_batch`` (Luecken et al. 2022, Methods). A type held by one batch alone, or with as
    many batches as cells, doesn't take part.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``; distances are Euclidean.
    labels, batch
        Cell type and batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 for batches that lie on top of each other within every type.

    Raises
    ------
    ValueError
        Fewer than two batches, no type that takes part, a missing name, shapes that don't fit, or values not finite.
    """
    return _mean_over_types(embedding, labels, batch, _silhouette)


def isolated_label_asw(embedding: npt.ArrayLike, labels: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """Isolated-label ASW (ILASW): ``(mean of s(i) + 1) / 2`` of each isolated type's cells, mean over these types.

    As ``scib_metrics.isolated_labels`` (Luecken et al. 2022, Methods). Isolated are the types that the fewest batches
    hold; where every batch holds every type these are all types.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``; distances are Euclidean.
    labels, batch
        Cell type and batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 for isolated types that are compact and far from all others.

    Raises
    ------
    ValueError
        Fewer than two types, as many types as cells, a missing name, shapes that don't fit, or values not finite.
    """
    array = check_embedding(embedding)
    codes = check_names(labels, "label", n_cells=len(array))
    batch_codes = check_names(batch, "batch", n_cells=len(array), at_least=1)
    _check_groups(array, codes)
    widths, isolated = _silhouette(array, codes), find_isolated(codes, batch_codes)
    return float(np.mean([(widths[codes == label].mean() + 1) / 2 for label in isolated]))


def bras(embedding: npt.ArrayLike, labels: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """Batch removal adapted silhouette (BRAS): as :func:`silhouette_batch`, but against all other batches together.

    As ``scib_metrics.bras`` with its defaults (Rautenstrauch and Ohler 2025): distances are cosine, and a cell's mean
    distance to its own batch is held against that to all cells of the same type in other batches, not to the nearest
    batch alone, which hides an effect where batches come in pairs.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``. A cell at the origin has no direction: its coefficient counts as 0.
    labels, batch
        Cell type and batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 for batches that lie on top of each other within every type.

    Raises
    ------
    ValueError
        As :func:`silhouette_batch`.
    """
    return _mean_over_types(embedding, labels, batch, _silhouette_to_others)


def find_isolated(labels: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Codes of the types that the fewest batches hold."""
    held = np.unique(np.column_stack([labels, batch]), axis=0)[:, 0]
    n_batches = np.bincount(held)
    return np.flatnonzero(n_batches == n_batches.min())


def _mean_over_types(
    embedding: npt.ArrayLike,
    labels: npt.ArrayLike,
    batch: npt.ArrayLike,
    silhouette: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    """Mean over types, of those in which batches can be compared, of ``mean of 1 - |s(i)|``."""
    array = check_embedding(embedding)
    label_codes = check_names(labels, "label", n_cells=len(array), at_least=1)
    batch_codes = check_names(batch, "batch", n_cells=len(array))
    widths = []
    for label in range(label_codes.max() + 1):
        cells = label_codes == label
        _, codes = np.unique(batch_codes[cells], return_inverse=True)
        if 1 < codes.max() + 1 < len(codes):
            widths.append(np.mean(1 - np.abs(silhouette(array[cells], codes))))
    if not widths:
        raise UndefinedMetricError(
            "no label has cells in two batches, so that batches can't be compared within one: check that labels are "
            "spelled alike in all batches"
        )
    return float(np.mean(widths))


def _check_groups(embedding: np.ndarray, codes: np.ndarray) -> None:
    if codes.max() + 1 == len(embedding):
        raise UndefinedMetricError(
            f"every one of the {len(embedding)} cells has a label of its own: there are no groups to compare"
        )


def _silhouette_to_others(embedding: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Silhouette of each cell against all other groups together, by cosine distance; zero in a group of one.

    A sum of cosine distances to a group is the group's size less the cell's dot product with the sum of the group's
    directions, so that no matrix of distances is needed.
    """
    lengths = np.linalg.norm(embedding.astype(np.float64), axis=1, keepdims=True)
    directions = embedding / np.where(lengths > 0, lengths, 1)
    sizes = np.bincount(codes)
    sums = np.zeros((len(sizes), embedding.shape[1]))
    np.add.at(sums, codes, directions)
    own = (directions * sums[codes]).sum(axis=1)  # the cell itself, at distance 0, takes part in both terms
    n_own = sizes[codes]
    within = (n_own - own) / np.maximum(n_own - 1, 1)
    between = (len(codes) - n_own - (directions @ sums.sum(axis=0) - own)) / (len(codes) - n_own)
    larger = np.maximum(within, between)
    defined = (n_own > 1) & (lengths[:, 0] > 0) & (larger > 0)
    return np.where(defined, between - within, 0) / np.where(defined, larger, 1)


def _silhouette(embedding: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Silhouette coefficient of each cell, shape ``(n_cells,)`` (Rousseeuw 1987); zero in a group of one."""
    from sklearn import config_context
    from sklearn.metrics import silhouette_samples

    with config_context(working_memory=_WORKING_MEMORY):
        return np.asarray(silhouette_samples(embedding, codes))
