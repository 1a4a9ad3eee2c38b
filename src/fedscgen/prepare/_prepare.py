"""A site's counts, filtered, with genes named as the federation names them, normalised."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from fedscgen._data import check_unique, summarize_expression
from fedscgen._options import check_kind
from fedscgen._words import TURN, TURNED
from fedscgen.prepare._genes import GeneTable, rename_genes
from fedscgen.prepare._options import PrepareOptions
from fedscgen.prepare._orientation import find_transposed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedscgen._rows import Matrix

PREPARED_KEY = "fedscgen_prepare"
"""Where ``uns`` says what was done."""

_SHOWN_GENES = 5
_UNLOGGED = ", normalised"
_NORMALISED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    ", log-normalised": np.expm1,
    ", log2-normalised": lambda values: np.expm1(values * np.log(2)),
    _UNLOGGED: lambda values: values,
}
_SUM_TOLERANCE = 0.01
# the 13 genes of human mitochondria that code for a protein, for data without symbols
_MITOCHONDRIAL_IDS = frozenset(
    f"ENSG00000{number}"
    for number in (
        "198695", "198712", "198727", "198763", "198786", "198804", "198840", "198886", "198888", "198899", "198938",
        "212907", "228253",
    )
)  # fmt: skip


class NoCellError(ValueError):
    """No cell is left."""


def prepare(adata: AnnData, options: PrepareOptions | None = None, *, gene_table: GeneTable | None = None) -> AnnData:
    """Filter cells, name genes as the federation does, and log-normalise.

    Thresholds are applied to what ``scanpy.pp.calculate_qc_metrics`` measures. Cells are normalised to the target sum
    over all genes that the data have, with ``scanpy.pp.normalize_total`` and ``log1p``. Genes that get the same name
    are summed; those for which the table has no name keep their own.

    Where there are no counts, normalised expression or its logarithm (natural, or to the base 2, of one more) serves in
    their place if all cells have the same sum, whatever it is, since that of the federation is then a multiple of it.
    Numbers that aren't whole, and too large for logarithms, are taken for estimated counts.

    Parameters
    ----------
    adata
        Raw counts of cells x genes, as :func:`read_raw` returns them. Not altered.
    options
        How. None: :class:`PrepareOptions` with its defaults.
    gene_table
        What genes are and were called; see :func:`read_gene_table`. None: only what the data themselves say.

    Returns
    -------
    AnnData of the cells that are kept: ``X`` log-normalised (CSR, float32), ``layers["counts"]``, ``obs`` with all
    columns and the measures of quality, ``obsm``, and in ``uns["fedscgen_prepare"]`` what was done.

    Raises
    ------
    TypeError
        ``options`` aren't :class:`PrepareOptions`.
    KeyError
        There is no such layer.
    ValueError
        There are no counts, no cell is kept, rows seem to be genes, or genes can't be named as asked.
    """
    options = PrepareOptions() if options is None else options
    check_kind(options, PrepareOptions, "options")
    if example := find_transposed({"": adata}, gene_table).get(""):
        raise ValueError(f"{TURNED}, as a row is called {example!r}: {TURN}")
    where, counts, var = _find_counts(adata, options.layer)
    check_unique(adata.obs_names, "obs_names")
    renamed = rename_genes(var, options.genes, gene_table, ignore_case=options.ignore_case)
    own = [str(name) for name in var.index]
    n_renamed = sum(before != now for before, now in zip(own, renamed.names, strict=True))
    prepared = _sum_by_name(counts, renamed.names)
    prepared.obs = adata.obs.copy()
    mitochondrial = _find_mitochondrial(renamed.names, var, prepared.var_names)
    left_out, kept = _filter(prepared, options, mitochondrial)
    prepared = prepared[kept].copy()
    prepared.obsm = {key: values[kept] for key, values in adata.obsm.items()}
    _normalise(prepared, options.target_sum, keep_counts=not where.endswith(tuple(_NORMALISED)))
    prepared.uns[PREPARED_KEY] = {
        "options": {name: "" if value is None else value for name, value in vars(options).items()},
        "counts": where,
        "n_cells": [adata.n_obs, prepared.n_obs],
        "n_genes": [len(own), prepared.n_vars],
        "left_out": left_out,
        "n_mitochondrial_genes": int(mitochondrial.sum()),
        "n_renamed": n_renamed,
        "unmapped": np.asarray(sorted(set(renamed.unmapped)), dtype=object),
    }
    return prepared


def describe_preparation(adata: AnnData) -> str:
    """What :func:`prepare` has done, in a few lines.

    Parameters
    ----------
    adata
        What it returned.

    Raises
    ------
    KeyError
        It wasn't prepared.
    """
    if PREPARED_KEY not in adata.uns:
        raise KeyError(f"uns[{PREPARED_KEY!r}] not found: these cells weren't prepared here; run fedscgen prepare")
    done, with_counts = adata.uns[PREPARED_KEY], "counts" in adata.layers
    (cells_before, cells), (genes_before, genes) = done["n_cells"], done["n_genes"]
    lines = [f"{cells} of {cells_before} cells are kept; counts from {done['counts']}"]
    lines += [f"  {n} left out: {reason}" for reason, n in done["left_out"].items()]
    if not done["n_mitochondrial_genes"]:
        lines.append("  no mitochondrial gene was found, so no cell was judged by its share")
    lines.append(f"{genes} of {genes_before} genes; {done['n_renamed']} renamed, those of the same name summed")
    unmapped = [str(name) for name in done["unmapped"]]
    if unmapped:
        more = f" and {len(unmapped) - _SHOWN_GENES} more" if len(unmapped) > _SHOWN_GENES else ""
        lines.append(
            f"  {len(unmapped)} keep their own names, as no other was found: {', '.join(unmapped[:_SHOWN_GENES])}{more}"
        )
    target = done["options"]["target_sum"]
    lines.append(f"normalised to {target:g} molecules per cell, log1p" + "; counts in layers['counts']" * with_counts)
    return "\n".join(lines)


def _find_counts(adata: AnnData, layer: str | None) -> tuple[str, Matrix, pd.DataFrame]:
    """Where whole numbers are, these, and what is known of their genes."""
    places: dict[str, tuple[Matrix, pd.DataFrame]] = {} if adata.X is None else {"X": (adata.X, adata.var)}
    # anndata 0.13 lists X among the layers, as None
    places |= {name: (values, adata.var) for name, values in adata.layers.items() if name is not None}
    if adata.raw is not None:
        places["raw"] = (adata.raw.X, adata.raw.var)
    if layer is not None and layer not in places:
        raise KeyError(f"layer={layer!r}: there are {', '.join(places)}")
    wanted = ("X", "counts", "raw") if layer is None else (layer,)
    for name in wanted:
        if name in places and _are_counts(places[name][0]):
            return name, sparse.csr_matrix(places[name][0], dtype=np.float32), places[name][1]
    for name in wanted:
        for how in _NORMALISED if name in places else ():
            if (molecules := _undo(places[name][0], how)) is not None:
                return f"{name}{how}", molecules, places[name][1]
    for name in wanted:  # no logarithm is as large
        if name in places and summarize_expression(places[name][0]).looks_raw:
            return f"{name}, not whole", sparse.csr_matrix(places[name][0], dtype=np.float32), places[name][1]
    raise ValueError(
        f"no counts: none of {', '.join(wanted)} holds whole numbers of molecules, or the same sum of normalised ones "
        f"in every cell, or logarithms of these; name the layer that does (there are {', '.join(places) or 'none'}), "
        "or ask for the matrix before it was normalised"
    )


def _undo(matrix: Matrix, how: str) -> sparse.csr_matrix | None:
    """What was normalised, and perhaps its logarithm taken, if all cells have the same sum of it."""
    values = summarize_expression(matrix)
    if not values.finite or values.lowest < 0 or values.whole or (values.looks_raw and how != _UNLOGGED):
        return None
    molecules = sparse.csr_matrix(matrix, dtype=np.float64, copy=True)
    molecules.data = _NORMALISED[how](molecules.data)
    totals = np.asarray(molecules.sum(axis=1)).ravel()
    same = totals.size and totals.min() > 0 and np.ptp(totals) <= _SUM_TOLERANCE * totals.max()
    return molecules.astype(np.float32) if same else None


def _are_counts(matrix: Matrix) -> bool:
    values = summarize_expression(matrix)
    return values.finite and values.lowest >= 0 and values.whole and values.highest > 0


def _sum_by_name(counts: sparse.csr_matrix, names: list[str]) -> AnnData:
    """Counts of each name, in the order in which names come first."""
    codes, unique = pd.factorize(np.asarray(names, dtype=object))
    if len(unique) < len(names):
        shape = (len(names), len(unique))
        to_name = sparse.csr_matrix((np.ones(len(names), np.float32), (np.arange(len(names)), codes)), shape)
        counts = sparse.csr_matrix(counts @ to_name)
    return AnnData(counts, var=pd.DataFrame(index=pd.Index(unique, dtype=str)))


def _find_mitochondrial(names: list[str], var: pd.DataFrame, unique: pd.Index) -> np.ndarray:
    """Which of the unique names are mitochondrial by any name that their genes have; shape ``(n_unique,)``."""
    texts = [names, var.index.astype(str), *(var[key].astype(str) for key in var if var[key].dtype.kind in "OTU")]
    by_symbol = np.any([pd.Series(list(text)).str.match("(?i)mt-").to_numpy(bool) for text in texts], axis=0)
    by_id = pd.Series(names).isin(_MITOCHONDRIAL_IDS).to_numpy()
    chosen: np.ndarray = unique.isin([name for name, whether in zip(names, by_symbol | by_id, strict=True) if whether])
    return chosen


def _filter(adata: AnnData, options: PrepareOptions, mitochondrial: np.ndarray) -> tuple[dict[str, int], np.ndarray]:
    """How many cells are left out for which reason, the first that holds, and which are kept."""
    import scanpy as sc

    adata.var["mt"] = mitochondrial
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a cell without a molecule
        sc.pp.calculate_qc_metrics(adata, qc_vars=["mt"], percent_top=None, log1p=False, inplace=True)
    n_genes = adata.obs["n_genes_by_counts"].to_numpy()
    reasons = {f"fewer than {options.min_genes} genes": n_genes < options.min_genes, "no molecule": n_genes == 0}
    if options.max_genes is not None:
        reasons[f"more than {options.max_genes} genes"] = n_genes > options.max_genes
    if options.max_mito is not None:
        share = adata.obs["pct_counts_mt"].to_numpy() / 100
        reasons[f"more than {options.max_mito:.0%} mitochondrial"] = share > options.max_mito
    kept, left_out = np.ones(adata.n_obs, dtype=bool), {}
    for reason, whether in reasons.items():
        if n := int((kept & whether).sum()):
            left_out[reason] = n
        kept &= ~whether
    if not kept.any():
        told = "; ".join(f"{n}: {reason}" for reason, n in left_out.items())
        raise NoCellError(
            f"none of {adata.n_obs} cells is kept ({told}): check that counts are cells x genes, or the thresholds"
        )
    return left_out, kept


def _normalise(adata: AnnData, target_sum: float, *, keep_counts: bool) -> None:
    """In place; counts go to a layer."""
    import scanpy as sc

    if keep_counts:
        adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
