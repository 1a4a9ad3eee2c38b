"""Raw counts: refused, or made what the model expects if that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from fedscgen._data import describe_counts, summarize_expression

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen._data import DataKeys
    from fedscgen._rows import Matrix

QUALITY_KEYS = ("n_genes_by_counts", "total_counts", "total_counts_mt", "pct_counts_mt")
"""Columns of ``obs`` that a preparation writes."""

HOW = "each cell was normalised to 10,000 and log1p taken before anything else"
_TOTAL = 1e4
_ROWS = 4096
SUM_TOLERANCE = 0.02
"""Share by which the sum of a cell's molecules may differ from what it was normalised to."""


def normalize_counts(adata: AnnData, keys: DataKeys, groups: pd.Categorical | None = None) -> AnnData:
    """Log-normalised cells: a copy where some hold counts or expression without a logarithm, else the same object.

    Parameters
    ----------
    adata
        Cells x genes. Not altered.
    keys
        Where it holds the expression.
    groups
        Each cell's site, where some may hold logarithms already and others not.
    """
    matrix = keys.expression_of(adata)
    groups = _one_group(adata) if groups is None else groups
    raw = np.isin(np.asarray(groups), find_counts(adata, keys, groups))
    if not raw.any():
        return adata
    normalized = adata.copy()
    whole = _take_logarithms(matrix[raw])
    if not raw.all():
        parts = [whole, matrix[~raw]]
        order = np.argsort(np.concatenate([np.flatnonzero(raw), np.flatnonzero(~raw)]))
        whole = (sparse.vstack(parts, "csr") if sparse.issparse(matrix) else np.concatenate(parts))[order]
    if keys.layer is None:
        normalized.X = whole
    else:
        normalized.layers[keys.layer] = whole
    return normalized


def normalize_sites(
    data: AnnData | Mapping[str, AnnData], site_key: str, keys: DataKeys
) -> AnnData | dict[str, AnnData]:
    """The same of all sites, each by what it holds.

    Parameters
    ----------
    data, site_key
        As :func:`fedscgen.federation.simulate` takes them.
    keys
        Where they hold the expression.
    """
    if isinstance(data, Mapping):
        return {name: normalize_counts(cells, keys) for name, cells in data.items()}
    return normalize_counts(data, keys, keys.categories_of(data, site_key))


def find_counts(adata: AnnData, keys: DataKeys, groups: pd.Categorical) -> list[str]:
    """Groups of cells, such as sites, that hold counts or expression without a logarithm.

    Parameters
    ----------
    adata, keys, groups
        As :func:`normalize_counts` takes them.
    """
    matrix = keys.expression_of(adata)
    return [str(name) for name in groups.categories if summarize_expression(matrix[groups == name]).looks_raw]


def refuse_counts(adata: AnnData, keys: DataKeys) -> None:
    """Refuse counts and expression without a logarithm.

    Parameters
    ----------
    adata, keys
        As :func:`normalize_counts` takes them.

    Raises
    ------
    ValueError
        The message names the largest value and the remedies.
    """
    values = summarize_expression(keys.expression_of(adata))
    if values.looks_raw:
        raise ValueError(describe_counts(keys.where, values))


def sum_cells(matrix: Matrix, shares: tuple[float, float, float] = (0.0, 0.5, 1.0)) -> tuple[float, float, float]:
    """Smallest, median and largest sum of ``expm1`` over a cell's genes; or those that other shares stay below."""
    sums = np.concatenate([_sum_rows(matrix[start : start + _ROWS]) for start in range(0, matrix.shape[0], _ROWS)])
    low, median, high = map(float, np.quantile(sums, shares))
    return low, median, high


def contradicts(sums: tuple[float, float, float], target_sum: float) -> bool:
    """Whether cells of such sums were normalised to something else; sums that vary below it may lack genes."""
    low, median, high = sums
    all_alike = high - low <= SUM_TOLERANCE * high
    return high > (1 + SUM_TOLERANCE) * target_sum or (all_alike and abs(median / target_sum - 1) > SUM_TOLERANCE)


def _sum_rows(matrix: Matrix) -> np.ndarray:
    if sparse.issparse(matrix):
        matrix = matrix.tocsr().astype(np.float64).expm1()
    else:
        matrix = np.expm1(np.asarray(matrix), dtype=np.float64)
    return np.asarray(matrix.sum(axis=1)).reshape(-1)


def _one_group(adata: AnnData) -> pd.Categorical:
    return pd.Categorical.from_codes(np.zeros(adata.n_obs, dtype=int), ["all"])


def _take_logarithms(matrix: Matrix) -> Matrix:
    totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    factors = _TOTAL / np.where(totals > 0, totals, 1.0)
    if sparse.issparse(matrix):
        logarithms: Matrix = matrix.multiply(factors).tocsr().astype(np.float32).log1p()
        return logarithms
    return np.log1p((np.asarray(matrix) * factors).astype(np.float32))
