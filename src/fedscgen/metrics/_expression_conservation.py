"""Does corrected expression still say what it said of a cell type at a site?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from fedscgen.metrics._checks import check_names

if TYPE_CHECKING:
    import numpy.typing as npt


def expression_conservation(
    before: npt.ArrayLike | sparse.spmatrix,
    after: npt.ArrayLike | sparse.spmatrix,
    batch: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    min_cells: int = 10,
    n_markers: int = 20,
) -> dict[str, float]:
    """Compare mean expression before and after correction, by cell type and batch.

    Correction should move a type's expression at a site little compared with how its genes differ from each other, and
    the genes that mark the type there should still mark it. Neither says whether batches mix.

    Parameters
    ----------
    before, after
        Expression on one scale (log-normalised), shape ``(n_cells, n_genes)``, dense or sparse.
    batch, labels
        Batch and cell type of each cell, shape ``(n_cells,)``.
    min_cells
        Fewest cells of a type in a batch for which the two are compared; means of fewer are noise.
    n_markers
        Genes that mark a type in a batch: those by which its mean exceeds that of the batch's other cells most.

    Returns
    -------
    ``"expression_spearman"``: rank correlation of the mean expression of all genes before and after, mean over types
    and batches; 0 for a type all of whose genes are alike. ``"expression_spearman_min"``: its lowest value.
    ``"marker_overlap"``: share of the marker genes before that are marker genes after, mean over types and batches;
    NaN if no batch has a second type. All at most 1, which is best.

    Raises
    ------
    ValueError
        No type of any batch has so many cells, no more genes than markers, shapes that don't fit, a missing name, or
        values not finite.
    """
    arrays = check_before_and_after(before, after)
    n_cells, n_genes = arrays[0].shape
    if n_genes <= n_markers:
        raise ValueError(f"{n_genes} genes: more than n_markers={n_markers} are needed to choose from")
    codes = check_names(batch, "batch", n_cells=n_cells, at_least=1)
    types = check_names(labels, "label", n_cells=n_cells, at_least=1)
    shape = codes.max() + 1, types.max() + 1
    counts = np.bincount(codes * shape[1] + types, minlength=shape[0] * shape[1]).reshape(shape)
    compared = counts >= min_cells
    if not compared.any():
        raise ValueError(f"no cell type has {min_cells} cells in a batch: lower min_cells")
    sums = [_sums(array, codes * shape[1] + types, shape) for array in arrays]
    correlations = _rank_correlations(*(each[compared] / counts[compared][:, None] for each in sums))
    marked = compared & (counts < counts.sum(axis=1, keepdims=True))
    kept = np.logical_and(*(_find_markers(each, counts, n_markers)[marked] for each in sums)).sum(axis=1)
    return {
        "expression_spearman": float(correlations.mean()),
        "expression_spearman_min": float(correlations.min()),
        "marker_overlap": float(kept.mean() / n_markers) if len(kept) else float("nan"),
    }


def check_before_and_after(
    before: npt.ArrayLike | sparse.spmatrix, after: npt.ArrayLike | sparse.spmatrix
) -> tuple[np.ndarray | sparse.csr_matrix, np.ndarray | sparse.csr_matrix]:
    """Return both as finite matrices of one shape, ``(n_cells, n_genes)``."""
    first, second = _check_expression(before, "before"), _check_expression(after, "after")
    if first.shape != second.shape:
        raise ValueError(f"expression before has shape {first.shape}, after {second.shape}: pass the same cells")
    return first, second


def _check_expression(expression: npt.ArrayLike | sparse.spmatrix, when: str) -> np.ndarray | sparse.csr_matrix:
    array = sparse.csr_matrix(expression) if sparse.issparse(expression) else np.asarray(expression)
    if array.ndim != 2:
        raise ValueError(f"expression {when} has shape {array.shape}, not (n_cells, n_genes)")
    if not np.isfinite(array.data if sparse.issparse(array) else array).all():
        raise ValueError(f"expression {when} is not finite: look for the step that produced NaN or infinity")
    return array


def _sums(expression: np.ndarray | sparse.csr_matrix, groups: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sums over the cells of each batch and type; shape ``(n_batches, n_types, n_genes)``."""
    cells = np.arange(len(groups))
    membership = sparse.csr_matrix((np.ones(len(groups)), (groups, cells)), shape=(np.prod(shape), len(groups)))
    sums = membership @ expression
    return np.asarray(sums.toarray() if sparse.issparse(sums) else sums).reshape(*shape, -1)


def _rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row with its counterpart; shape ``(n_rows,)``."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (first, second)]
    centred = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    scale = np.sqrt(np.prod([(each**2).sum(axis=1) for each in centred], axis=0))
    return np.asarray((centred[0] * centred[1]).sum(axis=1) / np.where(scale > 0, scale, 1))


def _find_markers(sums: np.ndarray, counts: np.ndarray, n_markers: int) -> np.ndarray:
    """Whether a gene is among those that exceed the batch's other cells most; shape of ``sums``."""
    others = sums.sum(axis=1, keepdims=True) - sums
    n_others = counts.sum(axis=1, keepdims=True) - counts
    excess = sums / np.maximum(counts, 1)[..., None] - others / np.maximum(n_others, 1)[..., None]
    markers = np.zeros(sums.shape, dtype=bool)
    np.put_along_axis(markers, np.argsort(-excess, axis=-1, kind="stable")[..., :n_markers], True, axis=-1)
    return markers
