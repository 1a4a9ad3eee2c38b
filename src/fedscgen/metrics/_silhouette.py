"""Average silhouette widths: do cells lie nearer to their own group than to the next one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import UndefinedMetricError, check_embedding, check_names

if TYPE_CHECKING:
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
    if codes.max() + 1 == len(array):
        raise UndefinedMetricError(
            f"every one of the {len(array)} cells has a label of its own: there are no groups to compare"
        )
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
    array = check_embedding(embedding)
    label_codes = check_names(labels, "label", n_cells=len(array), at_least=1)
    batch_codes = check_names(batch, "batch", n_cells=len(array))
    widths = []
    for label in range(label_codes.max() + 1):
        cells = label_codes == label
        _, codes = np.unique(batch_codes[cells], return_inverse=True)
        if 1 < codes.max() + 1 < len(codes):
            widths.append(np.mean(1 - np.abs(_silhouette(array[cells], codes))))
    if not widths:
        raise UndefinedMetricError(
            "no label has cells in two batches, so that batches can't be compared within one: check that labels are "
            "spelled alike in all batches"
        )
    return float(np.mean(widths))


def _silhouette(embedding: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Silhouette coefficient of each cell, shape ``(n_cells,)`` (Rousseeuw 1987); zero in a group of one."""
    from sklearn import config_context
    from sklearn.metrics import silhouette_samples

    with config_context(working_memory=_WORKING_MEMORY):
        return np.asarray(silhouette_samples(embedding, codes))
