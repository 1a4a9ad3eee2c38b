"""All sites' cells in one AnnData: as they were given, or one site after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from fedscgen._data import CELL_TYPE_KEY, CONFLICT_KEY, MOVED_KEY, RESULT_KEYS
from fedscgen._output import drop_outdated

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from fedscgen._data import DataKeys
    from fedscgen.federation._client import Client


def restore_order(
    adata: AnnData, site_key: str, clients: Sequence[Client], keys: DataKeys, expression: str | None
) -> AnnData:
    """A copy of the input with what the clients added; NaN where a site dropped out."""
    corrected = adata.copy()
    drop_outdated(corrected, (keys.batch_key, keys.labels_key))
    sites = keys.categories_of(adata, site_key)
    expressions: list[tuple[np.ndarray, np.ndarray | sparse.spmatrix]] = []
    columns: dict[str, list[pd.Series]] = {}
    for client in clients:
        part, rows = client.corrected, np.flatnonzero(sites == client.site)
        if part is None:
            continue
        client.corrected = None  # its expression is as large as the result's
        for key in part.obsm:
            _fill(corrected.obsm, key, rows, part.obsm[key], adata.n_obs)
        for key in part.obs.columns.intersection(list(RESULT_KEYS)):
            columns.setdefault(key, []).append(part.obs[key].astype(object))
        if expression == "X":
            expressions.append((rows, part.X))
        elif expression is not None and expression in part.layers:
            expressions.append((rows, part.layers[expression]))
    for key, parts in columns.items():
        column = pd.concat(parts).reindex(adata.obs_names)
        if key in (CONFLICT_KEY, MOVED_KEY):  # of cells whose site dropped out neither is so
            column = column.eq(True)
        corrected.obs[key] = column.astype("category") if key == CELL_TYPE_KEY else column.infer_objects()
    if expression == "X":
        corrected.X = _merge_rows(expressions, adata.n_obs)
    elif expressions:
        corrected.layers[expression] = _merge_rows(expressions, adata.n_obs)
    return corrected


def _merge_rows(
    parts: list[tuple[np.ndarray, np.ndarray | sparse.spmatrix]], n_rows: int
) -> np.ndarray | sparse.csr_matrix:
    """Matrices put together by the rows that each has, with NaN in rows of none; the parts are used up."""
    if not sparse.issparse(parts[0][1]):
        whole = np.full((n_rows, parts[0][1].shape[1]), np.nan, dtype=np.float32)
        while parts:
            rows, values = parts.pop()
            whole[rows] = values
        return whole
    missing = np.setdiff1d(np.arange(n_rows), np.concatenate([rows for rows, _ in parts]))
    parts.append((missing, sparse.csr_matrix(np.full((len(missing), parts[0][1].shape[1]), np.nan, dtype=np.float32))))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return sparse.vstack([values for _, values in parts], "csr")[order]


def _fill(arrays: MutableMapping[str, np.ndarray], key: str, rows: np.ndarray, values: np.ndarray, n_rows: int) -> None:
    """Write values into rows of a named array, which begins as NaN."""
    if key not in arrays:
        arrays[key] = np.full((n_rows, values.shape[1]), np.nan, dtype=values.dtype)
    arrays[key][rows] = values


def concatenate(parts: Mapping[str, AnnData], site_key: str) -> AnnData:
    """All sites' cells, one site after the other; names get the site appended where they would repeat.

    Genes that only some sites hold are zero at the others, and ``var["n_sites"]`` counts who holds each. Columns of
    ``obs`` that only some sites have are missing at the others; layers and ``obsm`` are those that all have.
    """
    names = pd.Index([name for part in parts.values() for name in part.obs_names])
    genes = list(dict.fromkeys(gene for part in parts.values() for gene in part.var_names))
    alike = {site: _keep_common(part, list(parts.values())) for site, part in parts.items()}
    whole = anndata.concat(
        alike, join="outer", fill_value=0, label=site_key, merge="same", index_unique=None if names.is_unique else "-"
    )
    holders = sum(pd.Index(genes).isin(part.var_names).astype(int) for part in parts.values())
    whole = whole[:, genes].copy() if list(whole.var_names) != genes else whole
    if (holders < len(parts)).any():
        whole.var["n_sites"] = holders
    for key in whole.obs.select_dtypes(include=object).columns:
        whole.obs[key] = _make_writable(whole.obs[key])
    return whole


def _make_writable(column: pd.Series) -> pd.Series:
    """Give a column that is missing at some sites, or of another kind there, a type that files can hold."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "boolean":
        return column.astype("boolean")
    if kind == "empty":
        return column.astype(float)
    return column if kind == "string" else column.astype(str).where(column.notna(), None)


def _keep_common(part: AnnData, parts: Sequence[AnnData]) -> AnnData:
    """The part with those layers and ``obsm`` alone that all parts have in one width."""
    layers = [key for key in part.layers if key is not None and all(key in other.layers for other in parts)]
    arrays = [key for key in part.obsm if len({np.shape(other.obsm.get(key, 0))[1:] for other in parts}) == 1]
    return AnnData(
        part.X,
        part.obs,
        part.var,
        layers={key: part.layers[key] for key in layers},
        obsm={key: part.obsm[key] for key in arrays},
    )
