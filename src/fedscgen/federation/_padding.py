"""Genes that a site lacks: zero in what the model sees, absent from what the site gets back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from fedscgen._data import RESULT_KEYS, TYPES_KEY, working_copy
from fedscgen._output import drop_outdated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._data import DataKeys, Matrix


def padded_copy(adata: AnnData, keys: DataKeys, genes: Sequence[str]) -> AnnData:
    """Just what a model of these genes needs, with zeros for those that ``adata`` lacks; sparse stays sparse."""
    known = set(adata.var_names)
    held = [gene for gene in genes if gene in known]
    working = working_copy(adata, keys, held)
    if len(held) == len(genes):
        return working
    index = pd.Index(list(genes))
    matrix = _spread(keys.expression_of(working), index.get_indexer(held), len(index))
    layers = {} if keys.layer is None else {keys.layer: matrix}
    return AnnData(X=matrix, obs=working.obs, var=pd.DataFrame(index=index), layers=layers)


def remove_padding(adata: AnnData, corrected: AnnData, expression: str | None) -> AnnData:
    """A copy of the site's cells, with its own genes and what the correction of its padded copy added.

    Parameters
    ----------
    adata
        The site's cells.
    corrected
        The same cells on the model's genes.
    expression
        Where corrected expression went; see :meth:`fedscgen.model.FedSCGEN.correct`.
    """
    own = adata[:, adata.var_names.isin(corrected.var_names)].copy()
    drop_outdated(own, corrected.obs.columns)
    own.obsm.update(corrected.obsm)
    for key in corrected.obs.columns.intersection(list(RESULT_KEYS)):
        own.obs[key] = corrected.obs[key]
    if TYPES_KEY in corrected.uns:
        own.uns[TYPES_KEY] = corrected.uns[TYPES_KEY]
    columns = corrected.var_names.get_indexer(own.var_names)
    if expression == "X":
        own.X = corrected.X[:, columns]
    elif expression is not None and expression in corrected.layers:
        own.layers[expression] = corrected.layers[expression][:, columns]
    return own


def _spread(matrix: Matrix, columns: np.ndarray, n_columns: int) -> Matrix:
    """The matrix with its columns at these positions, in ascending order, and zeros between them."""
    if sparse.issparse(matrix):
        rows = matrix.tocsr()
        return type(rows)((rows.data, columns[rows.indices], rows.indptr), shape=(rows.shape[0], n_columns))
    spread = np.zeros((matrix.shape[0], n_columns), dtype=matrix.dtype)
    spread[:, columns] = matrix
    return spread
