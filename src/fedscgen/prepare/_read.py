"""Raw counts from the files that sequencing centres and repositories hand out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fedscgen._read_cells import read_cells

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

CELLS_FILE = "cells.csv"
_WITH_COLUMNS = (".h5ad", ".h5mu")
_MATRICES = ("matrix.mtx.gz", "matrix.mtx")


def read_raw(path: str | PathLike[str], *, modality: str = "rna", cells: str | PathLike[str] | None = None) -> AnnData:
    """Read raw counts, whatever the form. Nothing on disk is changed.

    Parameters
    ----------
    path
        A 10x folder (``matrix.mtx``, ``barcodes.tsv``, and ``genes.tsv`` or ``features.tsv``, in Cell Ranger's
        compression), a 10x ``.h5`` file, or a file ``.h5ad`` or ``.h5mu``.
    modality
        Which of an ``.h5mu`` file's modalities has the expression.
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
    ValueError
        It is damaged, none of these forms, or the table has none of the cells.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not unique", category=UserWarning)  # genes are summed later
        if path.suffix in _WITH_COLUMNS and path.is_file():
            adata = read_cells(path, modality=modality)
        else:
            adata = _read_10x(path)
    if cells is None:
        beside = path / CELLS_FILE if path.is_dir() else path.with_suffix(f".{CELLS_FILE}")
        cells = beside if beside.exists() and path.suffix not in _WITH_COLUMNS else None
    return adata if cells is None else _add_columns(adata, Path(cells))


def _read_10x(path: Path) -> AnnData:
    import scanpy as sc

    if path.is_dir():
        if not any((path / name).exists() for name in _MATRICES):
            raise ValueError(f"{path} holds no matrix.mtx: name a folder as Cell Ranger writes it, or a file")
        if (path / "features.tsv").exists():
            raise ValueError(f"{path} holds features.tsv uncompressed, which Cell Ranger never does: gzip {path}/*")
    elif path.suffix != ".h5":
        raise ValueError(
            f"{path}: can read a 10x folder, 10x .h5, .h5ad and .h5mu; convert it to one of these, such as by "
            "anndata.io.read_loom(...).write_h5ad(...)"
        )
    try:
        return sc.read_10x_mtx(path, make_unique=False) if path.is_dir() else sc.read_10x_h5(path)
    except Exception as error:
        raise ValueError(f"{path} can't be read: {str(error).partition(chr(10))[0]}") from error


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
