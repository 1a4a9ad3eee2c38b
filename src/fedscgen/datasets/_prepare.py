"""The published preparation of raw counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

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

    from fedscgen._data import summarize_expression

    values = summarize_expression(adata.X)
    if not values.looks_raw:
        return adata
    prepared = adata[_count_genes(adata) >= min_genes].copy()
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


def _count_genes(adata: AnnData) -> np.ndarray:
    """Genes detected in each cell; shape ``(n_cells,)``."""
    return np.asarray((adata.X > 0).sum(axis=1)).ravel()


def _scale(adata: AnnData) -> None:
    import scanpy as sc

    if sparse.issparse(adata.X):
        adata.X = adata.X.toarray()
    sc.pp.scale(adata, max_value=_LARGEST_SCALED_VALUE)
