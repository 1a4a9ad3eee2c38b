"""Cells from the files that people keep them in."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData, read_h5ad
from anndata.io import read_zarr
from mudata import MuData, read_h5mu

from fedscgen._data import DataKeys
from fedscgen._files import check_readable
from fedscgen._output import repair


def read_cells(path: Path, *, on_disk: bool = False, modality: str = "rna") -> AnnData:
    """Read a file ``.h5ad``, a modality of a file ``.h5mu``, or a folder ``.zarr``.

    Parameters
    ----------
    path
        The file.
    on_disk
        Leave the expression in the file, which stays open; for a look at everything else. For ``.h5ad`` alone.
    modality
        The one that has the expression.

    Raises
    ------
    FileNotFoundError, ValueError
        There is none; it is empty, damaged, or something else.
    """
    check_readable(path)
    kind = path.suffix if path.suffix in (".h5mu", ".zarr") else ".h5ad"
    try:
        if kind == ".h5mu":
            cells = _take_modality(read_h5mu(path), modality)
        else:
            cells = read_zarr(path) if kind == ".zarr" else read_h5ad(path, backed="r" if on_disk else None)
    except Exception as error:
        raise ValueError(f"{path} can't be read as {kind}: {str(error).partition(chr(10))[0]}") from error
    if not on_disk:
        repair(cells)
    return cells


def _take_modality(mdata: MuData, name: str) -> AnnData:
    """The modality, with the columns that stand above all of them."""
    rna = DataKeys(modality=name).modality_of(mdata)
    shared = mdata.obs.loc[rna.obs_names, mdata.obs.columns.difference(rna.obs.columns)]
    for key in shared:
        rna.obs[key] = shared[key]
    return rna
