"""What tells two halves of a cell type apart that were drawn at random? Nothing should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from fedscgen.metrics._checks import check_embedding, check_names

if TYPE_CHECKING:
    import numpy.typing as npt

_N_NEIGHBORS, _N_FOLDS = 15, 5
_FEWEST_CELLS = _N_NEIGHBORS * _N_FOLDS // (_N_FOLDS - 1) + 1  # so that each fold leaves as many as neighbours
_GENES_AT_A_TIME = 256


def halves_accuracy(embedding: npt.ArrayLike, halves: npt.ArrayLike) -> float:
    """Balanced accuracy with which 15 nearest neighbours tell two halves of a cell type apart.

    Cross-validated in five folds of cells that follow each other. Where halves were drawn at random with one share
    everywhere, and nothing was invented, it is 0.5 on average. Where shares differ between batches, batches that lie
    apart raise it as well: compare it with that of the uncorrected embedding.

    Parameters
    ----------
    embedding
        Cells of the type alone, shape ``(n_cells, n_dimensions)``.
    halves
        Which half each cell is of, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        Not two halves, one of fewer than five cells, fewer than 19 in all, shapes that don't fit, or values not finite.
    """
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    array = check_embedding(embedding)
    codes = _check_halves(halves, len(array))
    sizes = np.bincount(codes)
    if sizes.min() < _N_FOLDS or sizes.sum() < _FEWEST_CELLS:
        needed = f"at least {_N_FOLDS} each and {_FEWEST_CELLS} in all"
        raise ValueError(f"halves of {sizes[0]} and {sizes[1]} cells: {needed}")
    classifier = KNeighborsClassifier(_N_NEIGHBORS)
    return float(cross_val_score(classifier, array, codes, cv=_N_FOLDS, scoring="balanced_accuracy").mean())


def n_different_genes(expression: npt.ArrayLike | sparse.spmatrix, halves: npt.ArrayLike) -> int:
    """Genes that a Wilcoxon rank-sum test calls different between two halves, at a false discovery rate of 5 %.

    Parameters
    ----------
    expression
        Cells of the type alone, shape ``(n_cells, n_genes)``, dense or sparse.
    halves
        Which half each cell is of, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        Not two halves, or shapes that don't fit.
    """
    from scipy.stats import false_discovery_control, mannwhitneyu

    matrix = sparse.csc_matrix(expression) if sparse.issparse(expression) else np.asarray(expression)
    codes, p_values = _check_halves(halves, matrix.shape[0]), []
    for start in range(0, matrix.shape[1], _GENES_AT_A_TIME):
        genes = matrix[:, start : start + _GENES_AT_A_TIME]
        values: np.ndarray = genes.toarray() if sparse.issparse(genes) else genes  # type: ignore[union-attr]
        p_values.append(mannwhitneyu(values[codes == 0], values[codes == 1], axis=0).pvalue)
    p = np.nan_to_num(np.concatenate(p_values), nan=1.0)  # a gene that no cell expresses has none
    return int(np.sum(false_discovery_control(p) < 0.05))


def _check_halves(halves: npt.ArrayLike, n_cells: int) -> np.ndarray:
    codes = check_names(halves, "half", n_cells=n_cells)
    if codes.max() != 1:
        raise ValueError(f"there are {codes.max() + 1} halves: two are compared")
    return codes
