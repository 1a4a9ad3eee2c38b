"""Cells that lack some of a model's genes: zero in what the model sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from fedscgen._data import check_unique
from fedscgen._genes import lacks_genes, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._data import DataKeys

FILLED_KEY = "fedscgen_filled"
"""Column of ``var``: genes that the cells lack."""


def fill_genes(adata: AnnData | MuData, keys: DataKeys, genes: Sequence[str], max_missing: float) -> AnnData | MuData:
    """The cells as they are or, if genes are missing, a copy on just these genes.

    Raises
    ------
    ValueError
        More than this share of the genes are missing, or names of genes repeat.

    Warns
    -----
    UserWarning
        Some are missing.
    """
    rna = keys.modality_of(adata)
    check_unique(rna.var_names, "var_names")
    if not lacks_genes(rna.var_names, genes, max_missing):
        return adata
    columns = rna.var_names.get_indexer(genes)
    held = np.flatnonzero(columns >= 0)
    matrix = spread(keys.expression_of(adata)[:, columns[held]], held, len(genes))
    var = pd.DataFrame({FILLED_KEY: columns < 0}, index=list(genes))
    layers = {} if keys.layer is None else {keys.layer: matrix}
    filled = AnnData(matrix, rna.obs.copy(), var, obsm=dict(rna.obsm), layers=layers)
    return MuData({keys.modality: filled}, obs=adata.obs) if isinstance(adata, MuData) else filled
