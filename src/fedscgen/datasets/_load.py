"""Data sets, ready to integrate: the published ones by name, and files of the user's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen.datasets._demo import demo_data
from fedscgen.datasets._download import fetch_dataset
from fedscgen.datasets._prepare import prepare

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from anndata import AnnData

DEMO = "demo"


def load_dataset(
    name: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    scale: bool = True,
    base_url: str = "https://zenodo.org",
    show_progress: bool = True,
) -> AnnData:
    """A published data set, or the demo, ready to integrate.

    Parameters
    ----------
    name
        One of :data:`DATASETS`, or ``"demo"``: :func:`demo_data` with seed 0, which is log-normalised and never scaled.
    data_dir, cache_dir, base_url, show_progress
        Where the file is looked for and fetched from: see :func:`fetch_dataset`.
    scale
        Whether :func:`prepare` scales raw counts, as the paper does.

    Returns
    -------
    AnnData of cells x genes with ``obs["batch"]`` (the sites) and ``obs["cell_type"]`` as categories and unique names,
    prepared (see :func:`prepare`).

    Raises
    ------
    ValueError
        There is no such data set, or the file isn't as described.
    KeyError
        The file lacks a column.
    FileNotFoundError, ConnectionError, OSError, ModuleNotFoundError
        The file can't be had: see :func:`fetch_dataset`.
    """
    if name == DEMO:
        return demo_data(seed=0)
    path = fetch_dataset(name, data_dir=data_dir, cache_dir=cache_dir, base_url=base_url, show_progress=show_progress)
    return load_file(path, scale=scale)


def load_file(
    path: str | PathLike[str],
    *,
    batch_key: str = "batch",
    labels_key: str = "cell_type",
    scale: bool = False,
    min_genes: int = 200,
) -> AnnData:
    """Your own ``.h5ad`` file, ready to integrate. The file isn't altered.

    Parameters
    ----------
    path
        The file. Its ``X`` holds raw counts, which are prepared, or expression that is taken as it is.
    batch_key
        Column of ``obs`` with the sites.
    labels_key
        Column of ``obs`` with the cell types.
    scale, min_genes
        How raw counts are prepared: see :func:`prepare`. By default they are not scaled.

    Returns
    -------
    AnnData of cells x genes with the two columns as categories in ``obs["batch"]`` and ``obs["cell_type"]``, whatever
    these held before, and unique names.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It can't be read as ``.h5ad``, has no ``X``, lacks the batch or type of a cell, or can't be prepared.
    KeyError
        It lacks a column; the message names those it has.
    """
    path = Path(path)
    adata = _read(path)
    columns = {"batch": _categories(adata, batch_key, path), "cell_type": _categories(adata, labels_key, path)}
    for key, column in columns.items():
        adata.obs[key] = column
    try:
        prepared = prepare(adata, scale=scale, min_genes=min_genes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for key in columns:
        prepared.obs[key] = prepared.obs[key].cat.remove_unused_categories()
    return prepared


def _read(path: Path) -> AnnData:
    """The file with unique names and rows that can be sliced fast."""
    from fedscgen._read_cells import read_cells

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not unique", category=UserWarning)  # made so right here
        warnings.filterwarnings("ignore", message="Suffix used", category=UserWarning)
        adata = read_cells(path)
        adata.obs_names_make_unique()
        adata.var_names_make_unique()
    if adata.X is None:
        raise ValueError(f"{path} has no X: put the counts or the log-normalised expression there")
    if getattr(adata.X, "format", None) == "csc":
        adata.X = adata.X.tocsr()
    return adata


def _categories(adata: AnnData, key: str, path: Path) -> pd.Categorical:
    """A column of ``obs`` as categories that are strings."""
    from fedscgen._data import DataKeys

    try:
        return DataKeys(labels_key=None).categories_of(adata, key)
    except (KeyError, ValueError) as error:
        raise type(error)(f"{path}: {error.args[0]}") from error
