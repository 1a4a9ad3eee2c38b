"""What is read of an AnnData or MuData, checked, and under which names results are written into one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSCDataset
from anndata.experimental import AnnCollection
from mudata import MuData
from scipy import sparse

from fedscgen._categories import find_spaced, trim, with_names_as_strings, without_spaces
from fedscgen._genes import gene_columns
from fedscgen._rows import Matrix, read_rows, row_chunks
from fedscgen._words import list_names, quantity

LATENT_KEY = "X_fedscgen"
REENCODED_KEY = "X_fedscgen_reencoded"
CORRECTED_LAYER = "fedscgen_corrected"
CELL_TYPE_KEY = "fedscgen_cell_type"
CONFIDENCE_KEY = "fedscgen_confidence"
CONFLICT_KEY = "fedscgen_label_conflict"
MOVED_KEY = "fedscgen_moved"
TYPES_KEY = "fedscgen_types"
KNOWN_KEY = "fedscgen_corrected"
"""Column of ``var``: genes that the model knows, where others are kept beside them."""
PREDICTED_KEYS = (CELL_TYPE_KEY, CONFIDENCE_KEY, CONFLICT_KEY)
"""Columns of ``obs`` with what is believed of the cells' types."""
RESULT_KEYS = (*PREDICTED_KEYS, MOVED_KEY)
"""Columns of ``obs`` that a correction may write."""

FEWEST_CELLS = 4  # that training needs: one to validate, the others to train on

_LARGEST_LOG_VALUE = 50.0
_LARGEST_VALUE = 1e9  # beyond it squares and their sums lose what is small


@dataclass(frozen=True)
class DataKeys:
    """Where an AnnData or MuData holds what the model needs."""

    batch_key: str | None = "batch"
    labels_key: str | None = "cell_type"
    layer: str | None = None
    modality: str | None = None
    unlabeled_category: str | None = None

    def of_anndata(self) -> dict[str, Any]:
        """What :meth:`fedscgen.model.FedSCGEN.setup_anndata` takes."""
        return {name: value for name, value in vars(self).items() if name != "modality"}

    def of_saved(self) -> dict[str, str | None]:
        """What a saved model tells of it; what only some data have is left out of those that haven't."""
        optional = ("modality", "unlabeled_category")
        return {name: value for name, value in vars(self).items() if name not in optional or value is not None}

    def modality_of(self, adata: AnnData | MuData) -> AnnData:
        """The AnnData itself, or the MuData's modality with the expression."""
        if not isinstance(adata, MuData):
            return adata
        if self.modality is None:
            raise ValueError("this is a MuData, but the model was set up with an AnnData: pass mdata.mod[...]")
        if self.modality not in adata.mod:
            held = list_names(adata.mod)
            raise ValueError(f"modality {self.modality!r} is not in mdata.mod; it holds {held}: name the one with RNA")
        return adata.mod[self.modality]

    def expression_of(self, adata: AnnData | MuData) -> Matrix:
        """The matrix of cells x genes: ``X`` or the layer."""
        rna = self.modality_of(adata)
        if self.layer is not None and self.layer not in rna.layers:
            raise KeyError(f"layers[{self.layer!r}] not found; there are {list_names(filter(None, rna.layers))}")
        matrix = rna.X if self.layer is None else rna.layers[self.layer]
        if matrix is None:
            raise ValueError("X is empty: put log-normalised expression there, or name a layer that holds it")
        if matrix.dtype.kind not in "fiu":
            remedy = "name a layer that" if matrix.dtype.kind == "b" else "convert it with astype('float32') if it"
            raise TypeError(f"{self.where} holds {matrix.dtype} instead of real numbers: {remedy} holds expression")
        return matrix

    @property
    def where(self) -> str:
        """What messages call the expression."""
        return "X" if self.layer is None else f"layers[{self.layer!r}]"

    @property
    def path(self) -> str:
        """What files call the expression."""
        return "X" if self.layer is None else f"layers/{self.layer}"

    def column_home(self, adata: AnnData | MuData, key: str) -> str | None:
        """The modality whose ``obs`` holds the column; ``None`` for the object's own ``obs``."""
        if key in adata.obs:
            return None
        if isinstance(adata, MuData) and key in self.modality_of(adata).obs:
            return self.modality
        raise KeyError(
            f"obs[{key!r}] not found; there are {list_names(adata.obs.columns)}: add the column or name another key"
        )

    def categories_of(self, adata: AnnData | MuData, key: str | None) -> pd.Categorical:
        """Each cell's batch or type, with names as strings; all cells are alike where there is no key."""
        if key is None:
            return pd.Categorical.from_codes(np.zeros(adata.n_obs, dtype=int), ["0"])
        column = self.column_of(adata, key)
        if column.isna().any():
            remedy = "fill the values in or leave those cells out"
            if key == self.labels_key:
                remedy += ", or name an unlabeled_category to keep them without a label"
            raise ValueError(
                f"obs[{key!r}] is missing for {quantity(int(column.isna().sum()), 'cell')} (first: "
                f"{column.index[column.isna()][0]!r}): {remedy}"
            )
        return with_names_as_strings(column)

    def labels_of(self, adata: AnnData | MuData) -> pd.Categorical:
        """Each cell's type; missing (code -1) for cells without a label, as all are if there is no key.

        Spaces around a name, or repeated within it, don't count.
        """
        if self.labels_key is None:
            return pd.Categorical.from_codes(np.full(adata.n_obs, -1), [])
        if self.unlabeled_category is None:
            return without_spaces(self.categories_of(adata, self.labels_key))
        labels = without_spaces(with_names_as_strings(self.column_of(adata, self.labels_key)))
        none = trim(self.unlabeled_category)
        return labels.set_categories([name for name in labels.categories if name != none])

    def column_of(self, adata: AnnData | MuData, key: str) -> pd.Series:
        """The column as it is, of all cells in their order."""
        home = self.column_home(adata, key)
        return adata.obs[key] if home is None else adata.mod[home].obs.loc[adata.obs_names, key]


def check_data(adata: AnnData | MuData, keys: DataKeys, who: str = "", *, refuse_counts: bool = False) -> None:
    """Refuse what can't be trained on or corrected, and warn of what is unlikely to be meant.

    Parameters
    ----------
    adata
        The data.
    keys
        Where it holds what the model needs.
    who
        What messages begin with, such as the name of a site.
    refuse_counts
        Refuse raw counts, of which there is a warning else.

    Raises
    ------
    KeyError
        A named key, layer or modality is missing.
    TypeError
        The data are an AnnCollection.
    ValueError
        No cell or gene, names that repeat, missing labels, expression with NaN or inf, or a MuData that has other cells
        than the modality.
    """
    try:
        for doubt in _doubts(adata, keys, refuse_counts):
            warnings.warn(who + doubt, UserWarning, stacklevel=2)
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(who + str(error.args[0])) from error


def check_size(n_cells: int) -> None:
    """Refuse so few cells that none are left to train on beside those that validate."""
    if n_cells < FEWEST_CELLS:
        raise ValueError(
            f"{quantity(n_cells, 'cell')} {'is' if n_cells == 1 else 'are'} too few to train on: at least "
            f"{FEWEST_CELLS} are needed; leave the site out, and have it correct them with the trained model"
        )


def check_unique(names: pd.Index, what: str) -> None:
    """Refuse names that repeat; ``what`` is ``"obs_names"`` or ``"var_names"``."""
    if not names.is_unique:
        first = names[names.duplicated()][0]
        raise ValueError(
            f"{what} are not unique: {first!r} occurs {int((names == first).sum())} times; "
            f"call adata.{what}_make_unique()"
        )


def working_copy(adata: AnnData, keys: DataKeys, genes: Sequence[str]) -> AnnData:
    """Just what the model needs, of just these genes; the matrix is shared with ``adata`` where they are the same."""
    matrix = keys.expression_of(adata)
    columns = gene_columns(adata.var_names, genes)
    matrix = matrix if columns is None else matrix[:, columns]
    obs = adata.obs[[key for key in (keys.batch_key, keys.labels_key) if key is not None]].copy()
    var = pd.DataFrame(index=list(genes))
    return AnnData(matrix, obs, var, layers={} if keys.layer is None else {keys.layer: matrix})


def first_cells(adata: AnnData, layer: str | None, n_cells: int = 1000) -> AnnData:
    """Some cells in memory, with all that setting a model up looks at."""
    matrix = read_rows(DataKeys(layer=layer).expression_of(adata), slice(n_cells))
    obs, var = adata.obs[:n_cells].copy(), pd.DataFrame(index=adata.var_names)
    return AnnData(matrix, obs, var, layers={} if layer is None else {layer: matrix})


def _doubts(adata: AnnData | MuData, keys: DataKeys, refuse_counts: bool) -> Iterator[str]:
    """Raise what is wrong, and yield what seems so."""
    if isinstance(adata, AnnCollection):
        raise TypeError("an AnnCollection holds no matrix of its own: pass anndata.concat([...]) of its parts")
    rna = keys.modality_of(adata)
    if not isinstance(rna.obs, pd.DataFrame):
        raise TypeError(
            f"obs is {type(rna.obs).__name__}, as anndata reads lazily: read it with adata.to_memory(), or, for cells "
            'that memory doesn\'t hold, open the file with anndata.read_h5ad(path, backed="r")'
        )
    if isinstance(adata, MuData):
        _check_paired(adata, rna, keys)
    if rna.n_obs == 0 or rna.n_vars == 0:
        raise ValueError(f"there is nothing to work on: {rna.n_obs} cells x {rna.n_vars} genes")
    check_unique(rna.obs_names, "obs_names")
    check_unique(rna.var_names, "var_names")
    if keys.batch_key is not None and keys.batch_key == keys.labels_key:
        raise ValueError(f"batch_key and labels_key both name obs[{keys.batch_key!r}]: pass two columns, or None")
    batches, labels = keys.categories_of(adata, keys.batch_key), keys.labels_of(adata)
    spaced = [] if keys.labels_key is None else find_spaced(keys.column_of(adata, keys.labels_key))
    if spaced:
        yield (
            f"obs[{keys.labels_key!r}] has {quantity(len(spaced), 'name')} with spaces around or repeated within it "
            f"(first: {spaced[0]!r}, read as {trim(spaced[0])!r}): spell them without, as other plots and tests "
            "take them for types of their own"
        )
    if keys.labels_key is not None and len(labels.categories) == 1 < rna.n_obs:
        yield (
            f"obs[{keys.labels_key!r}] holds one label only, {labels.categories[0]!r}: all cells of a batch will be "
            "moved alike; name the column with the cell types if this isn't it"
        )
    unlabeled = batches.categories.difference(batches[labels.codes >= 0], sort=False)
    for batch in unlabeled if keys.labels_key is not None else ():
        where = "" if keys.batch_key is None else f" of batch {batch!r}"
        yield (
            f"no cell{where} has a label in obs[{keys.labels_key!r}]: with landmarks, the default, types are told "
            "from other batches' labels; with references by cell type they stay where they are"
        )
    yield from _doubts_about_expression(keys.expression_of(adata), rna, keys.where, refuse_counts)


def _check_paired(mdata: MuData, rna: AnnData, keys: DataKeys) -> None:
    """Refuse a MuData whose cells aren't those of the modality, in its order: rows are matched by position."""
    if rna.obs_names.equals(mdata.obs_names):
        return
    remedy = f"set up mdata.mod[{keys.modality!r}] itself, with the columns in its obs"
    if mdata.n_obs != rna.n_obs:
        raise ValueError(
            f"modality {keys.modality!r} has {rna.n_obs} of the MuData's {mdata.n_obs} cells: {remedy}, or keep the "
            "cells that all modalities have (muon.pp.intersect_obs)"
        )
    raise ValueError(f"modality {keys.modality!r} has the MuData's cells in another order: {remedy}")


def _doubts_about_expression(matrix: Matrix, rna: AnnData, where: str, refuse_counts: bool) -> Iterator[str]:
    """Raise on NaN and inf, by cell and gene; yield on negative values and on what looks like raw counts."""
    if isinstance(matrix, CSCDataset):
        raise ValueError(
            f"{where} lies in its file by columns (CSC), all of which would be read for each cell: load it with "
            "adata.to_memory(), or write it by rows, with adata.X = adata.X.tocsr()"
        )
    values = summarize_expression(matrix)
    if not values.finite:
        raise ValueError(_non_finite(matrix, rna, where))
    largest = max(values.highest, -values.lowest)
    if largest >= _LARGEST_VALUE:
        raise ValueError(f"{where} holds {largest:.3g}, which no expression is: remove or repair such values")
    if values.lowest == values.highest == 0:
        raise ValueError(f"{where} holds only zeros: name the layer that holds log-normalised expression")
    if values.lowest < 0:
        yield f"{where} holds negative values (lowest: {values.lowest:.3g}), but log-normalised expression is expected"
    elif values.looks_raw:
        if refuse_counts:
            raise ValueError(describe_counts(where, values))
        yield describe_counts(where, values)


def describe_counts(where: str, values: ExpressionSummary) -> str:
    """What is said of expression that looks like raw counts; ``where`` it is."""
    return (
        f"{where} looks like raw or unlogged counts (largest: {values.highest:.6g}), but log-normalised expression "
        "is expected: run scanpy.pp.normalize_total and scanpy.pp.log1p, or name the layer that holds it; in a "
        "federation, or on the command line, ask for that with SiteOptions(normalize=True) or --normalize"
    )


class ExpressionSummary(NamedTuple):
    """What tells raw counts from log-normalised expression."""

    lowest: float
    highest: float
    whole: bool
    """Whether all values are whole numbers."""
    finite: bool

    @property
    def looks_raw(self) -> bool:
        """No value is negative; all are whole and some above 1, or some larger than any logarithm of expression."""
        return 0 <= self.lowest <= self.highest < _LARGEST_VALUE and (
            (self.whole and self.highest > 1) or self.highest > _LARGEST_LOG_VALUE
        )


def summarize_expression(matrix: Matrix) -> ExpressionSummary:
    """Look at all values, some cells at a time; zeros that a sparse matrix leaves out count as zeros."""
    lowest, highest, whole, finite = 0.0, 0.0, True, True
    for _, _, values in _value_chunks(matrix):
        finite = finite and bool(np.isfinite(values).all())
        lowest, highest = min(lowest, values.min(initial=0)), max(highest, values.max(initial=0))
        whole = whole and bool(np.equal(values, np.rint(values)).all())
    return ExpressionSummary(float(lowest), float(highest), whole, finite)


def _value_chunks(matrix: Matrix) -> Iterator[tuple[int, Matrix, np.ndarray]]:
    """Yield the first row of each chunk of cells, the chunk, and the values that it holds."""
    for rows, chunk in row_chunks(matrix):
        yield rows.start, chunk, chunk.data if sparse.issparse(chunk) else chunk


def _non_finite(matrix: Matrix, rna: AnnData, where: str) -> str:
    """The message on the first value that is NaN or inf; there is one."""
    start, chunk = next((i, part) for i, part, values in _value_chunks(matrix) if not np.isfinite(values).all())
    if sparse.issparse(chunk):
        entries = chunk.tocoo()
        rows, columns, values = entries.row, entries.col, entries.data
    else:
        rows, columns = np.indices(chunk.shape).reshape(2, -1)
        values = np.asarray(chunk).reshape(-1)
    at = int(np.flatnonzero(~np.isfinite(values))[0])
    return (
        f"{where} holds {values[at]} (first at cell {rna.obs_names[start + rows[at]]!r}, gene "
        f"{rna.var_names[columns[at]]!r}): remove or repair such values before training"
    )
