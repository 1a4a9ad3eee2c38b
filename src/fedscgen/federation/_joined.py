"""All sites' cells in one AnnData: as they were given, or one site after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from fedscgen._data import CELL_TYPE_KEY, CONFLICT_KEY, MOVED_KEY, RESULT_KEYS
from fedscgen._genes import gene_columns
from fedscgen._join import concatenate
from fedscgen._output import drop_outdated
from fedscgen._shared_cells import share_locked
from fedscgen.federation._padding import padded_copy
from fedscgen.federation._simulated_sites import options_of

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from fedscgen._data import DataKeys
    from fedscgen.federation._settings import SiteOptions

_ROWS_AT_A_TIME = 4096


def restore_order(
    adata: AnnData,
    site_key: str,
    parts: MutableMapping[str, AnnData],
    keys: DataKeys,
    expression: str | None,
) -> AnnData:
    """A copy of the input with what the sites' parts add, which are used up; NaN where a site dropped out.

    Without corrected expression it shares the input's matrices, but can't be written to through them.
    """
    sites = keys.categories_of(adata, site_key)
    expressions: list[tuple[np.ndarray, np.ndarray | sparse.spmatrix]] = []
    columns: dict[str, list[pd.Series]] = {}
    arrays: dict[str, np.ndarray] = {}
    while parts:
        site, part = parts.popitem()
        rows = np.flatnonzero(sites == site)
        for key in part.obsm:
            _fill(arrays, key, rows, part.obsm[key], adata.n_obs)
        for key in part.obs.columns.intersection(list(RESULT_KEYS)):
            columns.setdefault(key, []).append(part.obs[key].astype(object))
        if expression == "X":
            expressions.append((rows, part.X))
        elif expression is not None and expression in part.layers:
            expressions.append((rows, part.layers[expression]))
        del part  # its expression is as large as the result's
    merged = merge_rows(expressions, adata.n_obs) if expressions else None
    corrected = share_locked(adata) if merged is None else adata.copy()
    drop_outdated(corrected, (keys.batch_key, keys.labels_key))
    corrected.obsm.update(arrays)
    for key, told in columns.items():
        column = pd.concat(told).reindex(adata.obs_names)
        if key in (CONFLICT_KEY, MOVED_KEY):  # of cells whose site dropped out neither is so
            column = column.eq(True)
        corrected.obs[key] = column.astype("category") if key == CELL_TYPE_KEY else column.infer_objects()
    if expression == "X":
        corrected.X = merged
    elif expression is not None and merged is not None:
        corrected.layers[expression] = merged
    return corrected


def join_parts(data: Mapping[str, AnnData], parts: MutableMapping[str, AnnData], site_key: str) -> AnnData:
    """The sites' corrected cells, one after the other; the parts are used up. X is the input's if they have none."""
    given = {site: _genes_of(data[site], part) for site, part in parts.items() if part.X is None}
    whole = concatenate(parts, site_key)
    parts.clear()
    if given:
        whole.X = concatenate(given, site_key).X
    return whole


def join_working_copies(data: Mapping[str, AnnData], site_key: str, site: SiteOptions, genes: Sequence[str]) -> AnnData:
    """What a model needs of all sites' cells."""
    copies = {name: padded_copy(cells, options_of(cells, site).keys, genes) for name, cells in data.items()}
    joined = concatenate(copies, site_key)
    if site.batch_key is not None:  # a site without the column is one batch
        batches, sites = (joined.obs[key].astype(object) for key in (site.batch_key, site_key))
        joined.obs[site.batch_key] = batches.fillna(sites)
    return joined


def _genes_of(cells: AnnData, part: AnnData) -> AnnData:
    """The cells' matrix alone, of the part's genes."""
    columns = gene_columns(cells.var_names, part.var_names)
    matrix = cells.X if columns is None else cells.X[:, columns]
    return AnnData(matrix, cells.obs[[]], part.var[[]])


def merge_rows(
    parts: list[tuple[np.ndarray, np.ndarray | sparse.spmatrix]], n_rows: int
) -> np.ndarray | sparse.csr_matrix:
    """Matrices put together by the rows that each has, with NaN in rows of none; the parts are used up as they go."""
    n_columns = parts[0][1].shape[1]
    if sparse.issparse(parts[0][1]):
        return _merge_sparse_rows(parts, n_rows, n_columns)
    whole = np.full((n_rows, n_columns), np.nan, dtype=np.float32)
    while parts:
        rows, values = parts.pop()
        whole[rows] = values
    return whole


def _merge_sparse_rows(parts: list[tuple[np.ndarray, Any]], n_rows: int, n_columns: int) -> sparse.csr_matrix:
    """Write the parts into one matrix, which no other copy stands beside."""
    missing = np.setdiff1d(np.arange(n_rows), np.concatenate([rows for rows, _ in parts]))
    if len(missing):
        parts.append((missing, sparse.csr_matrix(np.full((len(missing), n_columns), np.nan, dtype=np.float32))))
    counts = np.empty(n_rows, dtype=np.int64)
    for rows, values in parts:
        counts[rows] = np.diff(values.indptr)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    kind = np.int32 if indptr[-1] <= np.iinfo(np.int32).max else np.int64
    indices, data = np.empty(indptr[-1], dtype=kind), np.empty(indptr[-1], dtype=np.float32)
    while parts:
        rows, values = parts.pop()
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            stop = min(start + _ROWS_AT_A_TIME, len(rows))
            entries = slice(values.indptr[start], values.indptr[stop])
            places = _places(indptr[rows[start:stop]], np.diff(values.indptr[start : stop + 1]))
            indices[places], data[places] = values.indices[entries], values.data[entries]
        del values
    return sparse.csr_matrix((data, indices, indptr.astype(kind)), shape=(n_rows, n_columns))


def _places(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions of the entries of rows that begin at ``starts`` and have ``counts`` entries."""
    before = np.cumsum(counts) - counts
    places: np.ndarray = np.repeat(starts - before, counts) + np.arange(counts.sum())
    return places


def _fill(arrays: MutableMapping[str, np.ndarray], key: str, rows: np.ndarray, values: np.ndarray, n_rows: int) -> None:
    """Write values into rows of a named array, which begins as NaN."""
    if key not in arrays:
        arrays[key] = np.full((n_rows, values.shape[1]), np.nan, dtype=values.dtype)
    arrays[key][rows] = values
