"""Highly variable genes that sites choose together, by sums: those that scanpy chooses on all cells in one place."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen._rows import Matrix
    from fedscgen._types import NamedArrays

AMONG_TOP, DISPERSION, HAS_DISPERSION = "n_among_top", "dispersion", "n_with_dispersion"
_SCALE = 2.0**20  # a normalised dispersion stays below 2**9, and masked sums have few bits behind the point
_FEWEST_CELLS = 3
_ROUNDING = 1e-3


def measure_variability(expression: Matrix, genes: Sequence[str], n_top: int) -> NamedArrays:
    """One site's part, by the dispersions that scanpy's flavour ``"seurat"`` normalises within this site.

    Parameters
    ----------
    expression
        Log-normalised, shape ``(n_cells, n_genes)``. It is not changed.
    genes
        Their names, that the sites have in common.
    n_top
        How many genes are to be chosen.

    Returns
    -------
    Whether each gene is among the site's own ``n_top``, its normalised dispersion or 0, and whether it has one; each of
    shape ``(n_genes,)``, in float64.

    Raises
    ------
    ValueError
        There are too few cells to tell how genes vary.
    """
    import scanpy as sc

    if expression.shape[0] < _FEWEST_CELLS:
        raise ValueError(
            f"n_top_genes={n_top}: {expression.shape[0]} cells don't tell which genes vary: leave this site out, or "
            "give the federation a fixed gene_list"
        )
    site = pd.DataFrame({"site": pd.Categorical(["here"] * expression.shape[0])}).rename(index=str)
    cells = AnnData(expression, obs=site, var=pd.DataFrame(index=list(genes)))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of genes without a dispersion, which have none
        found = sc.pp.highly_variable_genes(cells, n_top_genes=n_top, flavor="seurat", batch_key="site", inplace=False)
    dispersion = found["dispersions_norm"].to_numpy(np.float64)
    known = np.isfinite(dispersion)
    return {
        AMONG_TOP: found["highly_variable_nbatches"].to_numpy(np.float64),
        DISPERSION: np.where(known, dispersion, 0.0) * _SCALE,
        HAS_DISPERSION: known.astype(np.float64),
    }


def choose_variable_genes(genes: Sequence[str], sums: Mapping[str, np.ndarray], n_sites: int, n_top: int) -> list[str]:
    """The genes that are among the top at most sites, then those of the largest mean dispersion; in their own order.

    Parameters
    ----------
    genes
        Names, that the sites have in common.
    sums
        Of what :func:`measure_variability` gives at each site.
    n_sites
        How many of them there are.
    n_top
        How many genes are chosen.

    Raises
    ------
    ValueError
        These can't be sums over so many sites.
    """
    _check_sums(sums, len(genes), n_sites)
    n_top_at, n_with = np.rint(sums[AMONG_TOP]), np.rint(sums[HAS_DISPERSION])
    mean = np.where(n_with > 0, sums[DISPERSION], -np.inf) / np.maximum(n_with, 1)
    by_name = np.argsort(np.asarray(genes), kind="stable")
    order = by_name[np.lexsort((-mean[by_name], -n_top_at[by_name]))]
    return [genes[position] for position in np.sort(order[:n_top])]


def _check_sums(sums: Mapping[str, np.ndarray], n_genes: int, n_sites: int) -> None:
    """Refuse arrays of another size, and counts of sites that there can't be."""
    for name in (AMONG_TOP, DISPERSION, HAS_DISPERSION):
        if name not in sums or sums[name].shape != (n_genes,):
            raise ValueError(f"what is published of {n_genes} genes lacks {name!r}, or has it in another shape")
    for name in (AMONG_TOP, HAS_DISPERSION):
        impossible = np.abs(sums[name] - np.rint(sums[name]).clip(0, n_sites)) > _ROUNDING
        if impossible.any():
            raise ValueError(f"{name} of a gene is {sums[name][impossible][0]:g}, of {n_sites} sites")
