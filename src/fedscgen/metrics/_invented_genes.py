"""Which genes tell a cell type from the others of its batch after correction, and didn't before?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import UndefinedMetricError, check_names
from fedscgen.metrics._expression_conservation import check_before_and_after

if TYPE_CHECKING:
    import numpy.typing as npt
    from scipy import sparse

_RATE = 0.05  # of false discoveries
_GENES_AT_A_TIME = 512


def count_invented_genes(
    before: npt.ArrayLike | sparse.spmatrix,
    after: npt.ArrayLike | sparse.spmatrix,
    batch: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    min_cells: int = 10,
) -> dict[str, int]:
    """Count genes that differ between a type and the other cells of its batch, before and after correction.

    Within a batch no batch effect lies between two types. A gene that tells them apart after correction alone, or the
    other way round than before, has therefore got the difference from the correction. Each comparison is a Wilcoxon
    rank-sum test (normal approximation with ties, without continuity correction) at a false discovery rate of 5 %.

    Parameters
    ----------
    before, after
        Expression on one scale (log-normalised), shape ``(n_cells, n_genes)``, dense or sparse.
    batch, labels
        Batch and cell type of each cell, shape ``(n_cells,)``.
    min_cells
        Fewest cells of a type, and of the others in its batch, for which the two are compared.

    Returns
    -------
    Numbers of genes, summed over the comparisons: ``"tested"``, ``"before"`` and ``"after"``, those that differ, and
    ``"invented"``, those that differ after correction, and before it didn't or had the other sign. ``"comparisons"``:
    how many pairs of a batch and a type there are.

    Raises
    ------
    ValueError
        No batch holds so many cells of a type and of others, shapes that don't fit, a missing name, or values not
        finite.
    """
    arrays = check_before_and_after(before, after)
    n_cells, n_genes = arrays[0].shape
    codes = check_names(batch, "batch", n_cells=n_cells, at_least=1)
    types = check_names(labels, "label", n_cells=n_cells, at_least=1)
    counts = dict.fromkeys(("comparisons", "tested", "before", "after", "invented"), 0)
    for code in range(codes.max() + 1):
        own = codes == code
        sizes = np.bincount(types[own])
        compared = np.flatnonzero((sizes >= min_cells) & (own.sum() - sizes >= min_cells))
        if not len(compared):
            continue
        members = types[own] == compared[:, None]
        signs = [_find_differences(array[own], members) for array in arrays]  # (n_compared, n_genes) each
        counts["comparisons"] += len(compared)
        counts["tested"] += len(compared) * n_genes
        counts["before"] += int(np.count_nonzero(signs[0]))
        counts["after"] += int(np.count_nonzero(signs[1]))
        counts["invented"] += int(np.count_nonzero(signs[1] * (signs[1] != signs[0])))
    if not counts["comparisons"]:
        raise UndefinedMetricError(f"no batch holds {min_cells} cells of a type and {min_cells} others to compare")
    return counts


def _find_differences(expression: np.ndarray | sparse.csr_matrix, members: np.ndarray) -> np.ndarray:
    """1 and -1 for genes higher and lower in the members, 0 for no difference; shape ``(n_types, n_genes)``."""
    from scipy.stats import false_discovery_control, norm

    scores = np.concatenate(
        [
            _score_ranks(expression[:, start : start + _GENES_AT_A_TIME], members)
            for start in range(0, expression.shape[1], _GENES_AT_A_TIME)
        ],
        axis=1,
    )
    rejected = false_discovery_control(2 * norm.sf(np.abs(scores)), axis=1) < _RATE
    return np.asarray(np.sign(scores) * rejected, dtype=np.int8)


def _score_ranks(expression: np.ndarray | sparse.csr_matrix, members: np.ndarray) -> np.ndarray:
    """Standardised rank sums of the members among all cells; shape ``(n_types, n_genes)``."""
    from scipy.stats import rankdata

    values = expression if isinstance(expression, np.ndarray) else expression.toarray()
    ranks = rankdata(values, axis=0) - (len(values) + 1) / 2
    n, n_members = len(values), members.sum(axis=1)[:, None]
    variance = n_members * (n - n_members) / (n * (n - 1)) * (ranks**2).sum(axis=0)
    return np.asarray((members.astype(float) @ ranks) / np.sqrt(np.where(variance > 0, variance, 1)))
