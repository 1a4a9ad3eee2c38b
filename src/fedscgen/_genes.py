"""Genes by name: where they are, which are missing, and why their names may differ."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from fedscgen._words import list_names

_ENSEMBL = re.compile(r"ENS[A-Z]{0,4}G\d{11}(\.\d+)?")
_SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "in the version": lambda name: re.sub(r"\.\d+$", "", name),
    "in upper and lower case": str.casefold,
}


def gene_columns(var_names: pd.Index, genes: Sequence[str]) -> np.ndarray | None:
    """Positions of ``genes`` among ``var_names``, or ``None`` if the two are the same.

    Raises
    ------
    ValueError
        Genes are missing; the message names them.
    """
    if len(var_names) == len(genes) and (var_names == list(genes)).all():
        return None
    columns: np.ndarray = var_names.get_indexer(genes)
    missing = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
    if missing:
        raise ValueError(f"{_describe(missing, var_names, genes)}: {_REMEDY}")
    return columns


_REMEDY = "use the same annotation as the sites that trained the model"


def lacks_genes(var_names: pd.Index, genes: Sequence[str], max_missing: float) -> bool:
    """Whether genes are missing, and few enough to be taken for zero.

    Raises
    ------
    ValueError
        More than this share are missing; the message says how names differ.

    Warns
    -----
    UserWarning
        Some are missing.
    """
    missing = [gene for gene, there in zip(genes, pd.Index(genes).isin(var_names), strict=True) if not there]
    if not missing:
        return False
    told = _describe(missing, var_names, genes)
    if len(missing) > max_missing * len(genes):
        raise ValueError(f"{told}: {_REMEDY}, or allow for more than max_missing_genes={max_missing:g} of them")
    warnings.warn(f"{told}: taken for zero in every cell, as if none of them expressed it", UserWarning, stacklevel=3)
    return True


def spread(matrix: Any, columns: np.ndarray, n_columns: int) -> Any:
    """The matrix with its columns at these positions, in ascending order, and zeros between them."""
    if sparse.issparse(matrix):
        rows = matrix.tocsr()
        return type(rows)((rows.data, columns[rows.indices], rows.indptr), shape=(rows.shape[0], n_columns))
    spread = np.zeros((matrix.shape[0], n_columns), dtype=matrix.dtype)
    spread[:, columns] = matrix
    return spread


def replace_columns(matrix: Any, columns: np.ndarray, values: Any) -> Any:
    """The matrix as float32 with other values in some columns; sparse if both are."""
    if not sparse.issparse(values):
        whole = np.array(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=np.float32)
        whole[:, columns] = values
        return whole
    others = np.setdiff1d(np.arange(matrix.shape[1]), columns)
    joined = sparse.hstack([values, sparse.csr_matrix(matrix[:, others])], "csr", dtype=np.float32)
    return joined[:, np.argsort(np.concatenate([columns, others]))]


def _describe(missing: Sequence[str], var_names: pd.Index, genes: Sequence[str]) -> str:
    told = f"{len(missing)} of the model's {len(genes)} genes are missing in var_names ({list_names(missing)})"
    return told + _explain(missing, [str(name) for name in var_names])


def _explain(missing: Sequence[str], names: Sequence[str]) -> str:
    """How most of the missing genes' names differ from those that are there; empty if that isn't known."""
    for what, spell in _SPELLINGS.items():
        alike = {spell(name): name for name in names}
        pairs = [(gene, alike[spell(gene)]) for gene in missing if spell(gene) in alike]
        if 2 * len(pairs) > len(missing):
            return f", which differ {what}: {pairs[0][1]!r} here is {pairs[0][0]!r} there"
    wanted, here = _are_ids(missing), _are_ids(names)
    if names and wanted != here:
        kinds = {True: "Ensembl ids", False: "symbols"}
        return (
            f", which are {kinds[wanted]}, such as {missing[0]!r}, where these cells have {kinds[here]}, such as "
            f"{names[0]!r} (fedscgen prepare --genes makes them one kind)"
        )
    return ""


def _are_ids(names: Sequence[str]) -> bool:
    """Whether most of the names are Ensembl ids."""
    return 2 * sum(_ENSEMBL.fullmatch(name) is not None for name in names) > len(names)
