"""Genes that a site lacks: zero in what the model sees, absent from what the site gets back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from fedscgen._data import KNOWN_KEY, RESULT_KEYS, TYPES_KEY, working_copy
from fedscgen._genes import replace_columns, spread
from fedscgen._output import drop_outdated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._data import DataKeys


def padded_copy(adata: AnnData, keys: DataKeys, genes: Sequence[str]) -> AnnData:
    """Just what a model of these genes needs, with zeros for those that ``adata`` lacks; sparse stays sparse."""
    known = set(adata.var_names)
    held = [gene for gene in genes if gene in known]
    working = working_copy(adata, keys, held)
    if len(held) == len(genes):
        return working
    index = pd.Index(list(genes))
    matrix = spread(keys.expression_of(working), index.get_indexer(held), len(index))
    layers = {} if keys.layer is None else {keys.layer: matrix}
    return AnnData(X=matrix, obs=working.obs, var=pd.DataFrame(index=index), layers=layers)


def remove_padding(
    adata: AnnData, corrected: AnnData, keys: DataKeys, expression: str | None, *, keep_genes: bool = False
) -> AnnData:
    """A copy of the site's cells, with its own genes and what the correction of its padded copy added.

    Parameters
    ----------
    adata
        The site's cells.
    corrected
        The same cells on the model's genes.
    keys
        Where the site's cells have what.
    expression
        Where corrected expression went; see :meth:`fedscgen.model.FedSCGEN.correct`.
    keep_genes
        Whether genes that the model doesn't know stay, uncorrected.
    """
    known = adata.var_names.isin(corrected.var_names)
    own = (adata if keep_genes else adata[:, known]).copy()
    drop_outdated(own, corrected.obs.columns)
    own.obsm.update(corrected.obsm)
    for key in corrected.obs.columns.intersection(list(RESULT_KEYS)):
        own.obs[key] = corrected.obs[key]
    if TYPES_KEY in corrected.uns:
        own.uns[TYPES_KEY] = corrected.uns[TYPES_KEY]
    if own.n_vars > known.sum():
        own.var[KNOWN_KEY] = known
    if expression is None or (expression != "X" and expression not in corrected.layers):
        return own
    values = corrected.X if expression == "X" else corrected.layers[expression]
    values = values[:, corrected.var_names.get_indexer(adata.var_names[known])]
    if own.n_vars > known.sum():
        values = replace_columns(keys.expression_of(adata), known.nonzero()[0], values)
    if expression == "X":
        own.X = values
    else:
        own.layers[expression] = values
    return own
