"""The published preparation of raw counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

_CHECKED_CELLS = 4096
_LARGEST_LOG_VALUE = 50.0  # as the model judges it: no logarithm of expression is larger
_NORMALISED_TOTAL = 1e4
_LARGEST_SCALED_VALUE = 10.0


def prepare(adata: AnnData, *, scale: bool = True, min_genes: int = 200) -> AnnData:
    """Prepare raw counts as the paper does (Bakhtiari et al. 2025): filter, normalise, log, choose genes, scale.

    Cells with fewer than ``min_genes`` genes are left out, each cell is normalised to 10,000 molecules, ``log1p`` is
    taken, the dispersed genes are kept (``scanpy.pp.highly_variable_genes`` with its defaults: mean of 0.0125 to 3 and
    normalised dispersion above 0.5), and each is scaled to mean 0 and standard deviation 1, cut off at 10.

    Expression that isn't raw is taken as prepared. Raw is what has no negative value and consists of whole numbers with
    some above 1, or reaches beyond 50, which no logarithm of expression does.

    Parameters
    ----------
    adata
        Cells x genes. Not altered.
    scale
        Scale each gene, so that results compare with the published ones. It makes ``X`` dense and negative, of which
        models warn, and takes means over all batches, which no federation would know. ``False`` leaves ``X`` sparse
        and log-normalised, which is what models expect of data of your own.
    min_genes
        Fewest genes that are detected in a cell that is kept.

    Returns
    -------
    A prepared copy of the dispersed genes, with the whole numbers that were there in ``layers["counts"]``. If it is
    taken as prepared: ``adata`` itself.

    Raises
    ------
    ValueError
        No cell has as many genes, or no gene is dispersed.
    """
    import scanpy as sc

    values = _summary(adata)
    if not values.raw:
        return adata
    prepared = adata[_detected_genes(adata) >= min_genes].copy()
    if prepared.n_obs == 0:
        raise ValueError(
            f"none of {adata.n_obs} cells has {min_genes} of {adata.n_vars} genes detected: lower min_genes, or check "
            "that X holds the counts of cells x genes"
        )
    if values.whole:
        prepared.layers["counts"] = prepared.X.copy()
    sc.pp.normalize_total(prepared, target_sum=_NORMALISED_TOTAL)
    sc.pp.log1p(prepared)
    # scanpy takes logarithms back before it measures dispersion: that of the normalised counts, as in the paper
    sc.pp.highly_variable_genes(prepared, flavor="seurat")
    prepared = prepared[:, prepared.var["highly_variable"].to_numpy()].copy()
    if prepared.n_vars == 0:
        raise ValueError(f"none of {adata.n_vars} genes is dispersed: check that X holds the counts of cells x genes")
    logger.info("prepared %s cells x %s genes of %s x %s", *prepared.shape, *adata.shape)
    if scale:
        _scale(prepared)
    return prepared


class _Summary(NamedTuple):
    """What tells raw expression from prepared."""

    lowest: float
    highest: float
    whole: bool

    @property
    def raw(self) -> bool:
        return self.lowest >= 0 and ((self.whole and self.highest > 1) or self.highest > _LARGEST_LOG_VALUE)


def _summary(adata: AnnData) -> _Summary:
    lowest, highest, whole = 0.0, 0.0, True
    for start in range(0, adata.n_obs, _CHECKED_CELLS):
        chunk = adata.X[start : start + _CHECKED_CELLS]
        values = chunk.data if sparse.issparse(chunk) else np.asarray(chunk)
        lowest, highest = min(lowest, values.min(initial=0)), max(highest, values.max(initial=0))
        whole = whole and bool(np.equal(values, np.rint(values)).all())
    return _Summary(lowest, highest, whole)


def _detected_genes(adata: AnnData) -> np.ndarray:
    """Genes with a count in each cell; shape ``(n_cells,)``."""
    return np.asarray((adata.X > 0).sum(axis=1)).ravel()


def _scale(adata: AnnData) -> None:
    import scanpy as sc

    if sparse.issparse(adata.X):
        adata.X = adata.X.toarray()
    sc.pp.scale(adata, max_value=_LARGEST_SCALED_VALUE)
