"""Raw counts from the files that sequencing centres and repositories hand out."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_loom
from scipy import sparse
from scipy.io import mmread

from fedscgen._read_cells import read_cells
from fedscgen._words import list_names

if TYPE_CHECKING:
    from os import PathLike

CELLS_FILE = "cells.csv"
_WITH_COLUMNS = (".h5ad", ".h5mu", ".loom", ".zarr")
_CELL_RANGERS = ("filtered_feature_bc_matrix", "outs/filtered_feature_bc_matrix")
_NAMES_IN_LOOM = {"obs_names": ("col_attrs", "CellID"), "var_names": ("row_attrs", "Gene")}
_EXPRESSION = "Gene Expression"


def read_raw(
    path: str | PathLike[str], *, modality: str | None = None, cells: str | PathLike[str] | None = None
) -> AnnData:
    """Read raw counts, whatever the form. Nothing on disk is changed.

    Parameters
    ----------
    path
        A folder with ``matrix.mtx``, ``barcodes.tsv``, and ``genes.tsv`` or ``features.tsv``, compressed by gzip or
        not, each perhaps after one and the same beginning of its name; a folder of Cell Ranger's with such a folder
        of filtered cells; a 10x ``.h5`` file; or a file ``.h5ad``, ``.h5mu``, a folder ``.zarr`` or, if loompy is
        installed, ``.loom``.
    modality
        Which of an ``.h5mu`` file's modalities has the expression. None: ``"rna"`` or, if there is but one, this,
        unless its name says otherwise.
    cells
        Table (CSV) of what is known of the cells: their names in the first column, as the data have them, and columns
        for ``obs``, such as ``cell_type``. Cells that it lacks have missing values. None: ``cells.csv`` in a 10x
        folder, or ``NAME.cells.csv`` beside ``NAME.h5``, if there is one.

    Returns
    -------
    AnnData of cells x genes as the file has them; genes may repeat.

    Raises
    ------
    FileNotFoundError
        There is no such file or folder.
    ModuleNotFoundError
        It is a loom file, and loompy isn't installed.
    ValueError
        It is damaged, none of these forms, or the table has none of the cells.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not unique", category=UserWarning)  # genes are summed later
        adata = _read(path, modality)
    if cells is None:
        beside = path / CELLS_FILE if path.is_dir() else path.with_suffix(f".{CELLS_FILE}")
        cells = beside if beside.exists() and path.suffix not in _WITH_COLUMNS else None
    return adata if cells is None else _add_columns(adata, Path(cells))


def _read(path: Path, modality: str | None) -> AnnData:
    if path.suffix in (".h5ad", ".h5mu", ".zarr"):
        return read_cells(path, modality=modality)
    if path.is_dir():
        return _read_folder(path)
    if path.suffix not in (".h5", ".loom"):
        raise ValueError(
            f"{path}: can read a 10x folder, 10x .h5, .h5ad, .h5mu, .zarr and .loom; convert it to one of these"
        )
    import scanpy as sc

    try:
        return sc.read_10x_h5(path) if path.suffix == ".h5" else _read_loom(path)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} can't be read: {str(error).partition(chr(10))[0]}")


def _read_loom(path: Path) -> AnnData:
    if find_spec("loompy") is None:
        raise ModuleNotFoundError(f"{path}: a loom file needs the package loompy: pip install loompy", name="loompy")
    with h5py.File(path, "r") as file:
        names = {key: _find_names(file[axis], usual, key) for key, (axis, usual) in _NAMES_IN_LOOM.items()}
    adata = read_loom(path, X_name="", **names)
    adata.obs_names, adata.var_names = adata.obs_names.astype(str), adata.var_names.astype(str)
    return adata


def _find_names(attributes: h5py.Group, usual: str, of_scanpy: str) -> str:
    """Under which name the file has those of cells or genes."""
    for name in (usual, of_scanpy):
        if name in attributes:
            return name
    raise ValueError(f"{attributes.name[1:]} has no {usual!r} or {of_scanpy!r}, but {list_names(attributes)}")


def _read_folder(folder: Path) -> AnnData:
    """What Cell Ranger and STARsolo write, and repositories hand out."""
    places = [folder, *(folder / name for name in _CELL_RANGERS)]
    matrices = next(filter(None, (sorted(place.glob("*matrix.mtx*")) for place in places)), [])
    if not matrices:
        raise ValueError(f"{folder} holds no matrix.mtx: name a folder as Cell Ranger writes it, or a file")
    if len(matrices) > 1:
        held = list_names(path.name for path in matrices)
        raise ValueError(f"{folder} holds several matrices ({held}): give each a folder of its own")
    beginning = str(matrices[0]).rpartition("matrix.mtx")[0]
    try:
        counts = sparse.csr_matrix(mmread(matrices[0]).T, dtype=np.float32)
        barcodes = _read_table(beginning, "barcodes")
        features = _read_table(beginning, "features", "genes")
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(folder, error) from error
    if counts.shape != (len(barcodes), len(features)):
        raise ValueError(
            f"{folder}: {matrices[0].name} is of {counts.shape[0]} cells x {counts.shape[1]} genes, but there are "
            f"{len(barcodes)} barcodes and {len(features)} genes: the files aren't of one sample"
        )
    return _only_expression(counts, barcodes, features)


def _only_expression(counts: sparse.csr_matrix, barcodes: pd.DataFrame, features: pd.DataFrame) -> AnnData:
    """The cells, without antibodies and the like where the table says which these are."""
    symbols = features[min(1, features.shape[1] - 1)]
    var = pd.DataFrame({"gene_ids": features[0].to_numpy()}, index=symbols.to_numpy(dtype=str))
    adata = AnnData(counts, obs=pd.DataFrame(index=barcodes[0].to_numpy(dtype=str)), var=var)
    if features.shape[1] < 3 or not (is_gene := (features[2] == _EXPRESSION).to_numpy()).any():
        return adata
    return adata[:, is_gene].copy()


def _read_table(beginning: str, *names: str) -> pd.DataFrame:
    for name in names:
        for file in (Path(f"{beginning}{name}.tsv.gz"), Path(f"{beginning}{name}.tsv")):
            if file.exists():
                return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False)
    raise ValueError(f"beside the matrix is no {' or '.join(names)}.tsv")


def _add_columns(adata: AnnData, file: Path) -> AnnData:
    """The cells with what the table says of them."""
    table = pd.read_csv(file, index_col=0, dtype={0: str})
    table.index = table.index.astype(str)
    if not table.index.is_unique:
        raise ValueError(f"{file}: {table.index[table.index.duplicated()][0]!r} is there twice: keep one row of a cell")
    if not table.index.isin(adata.obs_names).any():
        raise ValueError(
            f"{file} has none of the cells: it begins with {table.index[0]!r}, and they with {adata.obs_names[0]!r}"
            if len(table)
            else f"{file} has no cell"
        )
    for key in table:
        adata.obs[key] = table[key].reindex(adata.obs_names).to_numpy()
    return adata
