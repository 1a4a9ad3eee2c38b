"""Cells from the files that people keep them in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import zarr
from anndata import AnnData, read_h5ad
from anndata.experimental import read_dispatched
from anndata.io import read_zarr, sparse_dataset
from mudata import MuData, read_h5mu

from fedscgen._data import DataKeys
from fedscgen._files import check_readable
from fedscgen._output import repair

_USUAL_MODALITY = "rna"
_OTHER_MODALITIES = {"adt", "antibody", "atac", "cite", "hto", "peaks", "prot", "protein"}


def read_cells(path: Path, *, on_disk: bool = False, modality: str | None = None) -> AnnData:
    """Read a file ``.h5ad``, a modality of a file ``.h5mu``, or a folder ``.zarr``.

    Parameters
    ----------
    path
        The file.
    on_disk
        Leave the expression in the file, which stays open; for a look at everything else. For ``.h5ad`` alone.
    modality
        The one that has the expression. None: ``"rna"`` or, if there is but one, this, unless its name says otherwise.

    Raises
    ------
    FileNotFoundError, ValueError
        There is none; it is empty, damaged, or something else.
    """
    check_readable(path)
    kind = path.suffix if path.suffix in (".h5mu", ".zarr") else ".h5ad"
    try:
        if kind == ".h5mu":
            cells = _take_modality(_read_quietly(path), modality)
        else:
            cells = read_zarr(path) if kind == ".zarr" else read_h5ad(path, backed="r" if on_disk else None)
    except Exception as error:
        raise _unreadable(path, error) from error
    if not on_disk:
        repair(cells)
    return cells


@contextmanager
def open_cells(path: Path, modality: str | None = None) -> Iterator[AnnData]:
    """The same cells, whose ``X``, layers and ``raw`` stay in the file, which is open while the block lasts.

    A file ``.h5mu``, or of an older format of anndata's, is read whole.

    Parameters
    ----------
    path, modality
        As :func:`read_cells` takes them.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read_cells` does.
    """
    check_readable(path)
    store = _open(path)
    if store is None:
        yield read_cells(path, modality=modality)
        return
    try:
        try:
            cells = read_dispatched(store, _leave_matrices)
        except Exception as error:
            raise _unreadable(path, error) from error
        repair(cells)
        yield cells
    finally:
        if isinstance(store, h5py.File):
            store.close()


def _open(path: Path) -> Any:
    """The file or folder, or None where it can't be read in parts, if at all."""
    try:
        store = zarr.open_group(str(path), mode="r") if path.suffix == ".zarr" else h5py.File(path, "r")
    except Exception:  # noqa: BLE001  reading it whole says what is wrong
        return None
    if store.attrs.get("encoding-type") == "anndata" and path.suffix != ".h5mu":
        return store
    if isinstance(store, h5py.File):
        store.close()
    return None


def _leave_matrices(read: Callable[[Any], Any], name: str, elem: Any, *, iospec: Any) -> Any:
    """Read an element of a file but for expression, of which what is returned can read rows."""
    kind, parts = iospec.encoding_type, name.strip("/").split("/")
    if (name, kind) in (("/", "anndata"), ("/raw", "raw")):
        held = {key: read_dispatched(elem[key], _leave_matrices) for key in elem}
        return held if kind == "raw" else AnnData(**held)
    if parts in (["X"], ["raw", "X"]) or (parts[0] == "layers" and len(parts) == 2):
        if kind in ("csr_matrix", "csc_matrix"):
            return sparse_dataset(elem)
        if kind == "array":
            return elem
    return read(elem)


def _unreadable(path: Path, error: Exception) -> ValueError:
    kind = path.suffix if path.suffix in (".h5mu", ".zarr") else ".h5ad"
    return ValueError(f"{path} can't be read as {kind}: {str(error).partition(chr(10))[0]}")


def _read_quietly(path: Path) -> MuData:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="From 0.4 .update", category=FutureWarning)  # of its next version
        return read_h5mu(path)


def list_modalities(path: Path) -> list[str]:
    """Names of what a file ``.h5mu`` holds; none of any other file."""
    if path.suffix != ".h5mu" or not h5py.is_hdf5(path):
        return []
    with h5py.File(path, "r") as file:
        return list(file.get("mod", ()))


def _take_modality(mdata: MuData, name: str | None) -> AnnData:
    """The modality, with the columns that stand above all of them."""
    held = list(mdata.mod)
    is_plain = len(held) == 1 and held[0].casefold() not in _OTHER_MODALITIES
    keys = DataKeys(modality=name or (held[0] if is_plain else _USUAL_MODALITY))
    try:
        rna = keys.modality_of(mdata)
    except ValueError as error:
        raise ValueError(f"{error} (--modality)") from error
    shared = mdata.obs.loc[rna.obs_names, mdata.obs.columns.difference(rna.obs.columns)]
    for key in shared:
        rna.obs[key] = shared[key]
    return rna
