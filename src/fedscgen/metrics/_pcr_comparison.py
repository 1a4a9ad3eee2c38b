"""How much less of the variance do batches explain than before?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import UndefinedMetricError, check_embedding, check_names

if TYPE_CHECKING:
    import numpy.typing as npt


def pcr_comparison(before: npt.ArrayLike, after: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """Principal component regression (PCR): the part of the variance between batches that is gone, 0 if it grew.

    As ``scib_metrics.pcr_comparison`` with a categorical covariate and all components (Büttner et al. 2019; Luecken et
    al. 2022, Methods). The variances of the components, weighted by what batches explain of each, then add up to the
    variance of the batches' means, whatever the axes: this is computed here directly and in double precision.

    Parameters
    ----------
    before, after
        The uncorrected and the corrected embedding, shape ``(n_cells, n_dimensions)``; the dimensions may differ.
    batch
        Batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 if batches no longer explain any variance.

    Raises
    ------
    ValueError
        Fewer than two batches, all cells on one spot, batches that explained nothing before, a missing name, shapes
        that don't fit, or values not finite.
    """
    uncorrected, corrected = check_embedding(before), check_embedding(after)
    if len(uncorrected) != len(corrected):
        raise ValueError(
            f"the embedding before has {len(uncorrected)} cells and the one after {len(corrected)}: pass two "
            "embeddings of the same cells"
        )
    codes = check_names(batch, "batch", n_cells=len(corrected))
    explained_before = _share_explained(uncorrected, codes)
    if explained_before == 0:
        raise UndefinedMetricError("batches explain none of the variance before correction: there is nothing to remove")
    return max(0.0, 1 - _share_explained(corrected, codes) / explained_before)


def _share_explained(embedding: np.ndarray, batch: np.ndarray) -> float:
    """Share of the variance that lies between the batches' means."""
    total = embedding.var(axis=0, dtype=np.float64).sum()
    if total == 0:
        raise UndefinedMetricError(f"all {len(embedding)} cells lie on one spot: there is no variance to explain")
    mean = embedding.mean(axis=0, dtype=np.float64)
    between = 0.0
    for code in range(batch.max() + 1):
        cells = embedding[batch == code]
        between += len(cells) * ((cells.mean(axis=0, dtype=np.float64) - mean) ** 2).sum()
    return float(between / len(embedding) / total)
