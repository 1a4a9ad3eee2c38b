"""All sites' cells in one AnnData: as they were given, or one site after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from fedscgen._data import CELL_TYPE_KEY, CONFLICT_KEY, MOVED_KEY, RESULT_KEYS
from fedscgen._output import drop_outdated

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

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
