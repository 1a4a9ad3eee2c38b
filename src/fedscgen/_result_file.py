"""A result that is written while it is computed, for cells that memory needn't hold."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import zarr
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from fedscgen._rows import count_entries, in_rows, row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

    from fedscgen._rows import Matrix

SUFFIXES = (".h5ad", ".zarr")
_VALUES_AT_A_TIME = 2**16  # in a file's chunk


class ResultFile:
    """A file or folder that takes matrices some rows at a time; see :func:`write_result`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._sparse: dict[str, Any] = {}

    def append(self, key: str, rows: Matrix, n_entries: int | None = None) -> None:
        """Add rows, all sparse or all dense, to the matrix of this name, such as ``"layers/corrected"``.

        ``n_entries`` are those that a sparse matrix will have, at most; ``None`` if nobody knows.
        """
        if sparse.issparse(rows):
            self._append_sparse(key, rows, n_entries)
        elif key not in self._store:
            shape = (max(1, _VALUES_AT_A_TIME // max(1, rows.shape[1])), max(1, rows.shape[1]))
            self._write(key, rows, chunks=shape, **({} if self._is_zarr else {"maxshape": (None, rows.shape[1])}))
        else:
            array = self._store[key]
            start = array.shape[0]
            array.resize((start + len(rows), rows.shape[1]))
            array[start:] = rows

    def copy(self, key: str, matrix: Matrix, genes: np.ndarray | None) -> None:
        """Write a whole matrix, or these columns of it."""
        for _, chunk in row_chunks(matrix):
            self.append(key, chunk if genes is None else chunk[:, genes], count_entries(matrix))

    def write(self, key: str, part: Any) -> None:
        """Write whatever anndata can, in place of what there is."""
        if key in self._store:
            del self._store[key]
        self._write(key, part)

    def write_raw(self, raw: Any) -> None:
        """Write what an AnnData holds as ``raw``."""
        self._store.create_group("raw").attrs.update({"encoding-type": "raw", "encoding-version": "0.1.0"})
        var = raw.var.copy()
        anndata.AnnData(var=var).strings_to_categoricals(var)
        self._write("raw/var", var)
        self._write("raw/varm", dict(raw.varm))
        self.copy("raw/X", raw.X, None)

    @property
    def _is_zarr(self) -> bool:
        return not isinstance(self._store, h5py.Group)

    def _append_sparse(self, key: str, rows: sparse.csr_matrix, n_entries: int | None) -> None:
        rows = in_rows(rows)
        if key in self._sparse:
            self._sparse[key].append(rows)
            return
        fits = n_entries is not None and n_entries <= np.iinfo(np.int32).max
        self._write(key, rows, chunks=(_VALUES_AT_A_TIME,), indptr_dtype=np.int32 if fits else np.int64)
        self._sparse[key] = sparse_dataset(self._store[key], should_cache_indptr=False)

    def _write(self, key: str, part: Any, **options: Any) -> None:
        group, _, name = key.rpartition("/")
        _write(self._store[group] if group else self._store, name, part, **options)


def check_suffix(path: Path, name: str) -> None:
    """Refuse a place whose format can't be written; ``name`` is what the message calls the place."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{name} {path}: a result is written as {' or '.join(SUFFIXES)}; let the name end so")


@contextmanager
def write_result(path: Path, light: AnnData) -> Iterator[ResultFile]:
    """Begin a file ``.h5ad`` or a folder ``.zarr`` with everything but ``X``, layers and ``raw``, which are to follow.

    A folder is of the format that ``anndata.settings.zarr_write_format`` names.

    Parameters
    ----------
    path
        The file, which doesn't exist.
    light
        All the rest; its strings become categories, as when anndata writes.

    Raises
    ------
    OSError
        There is no room, or something else has ended the writing.
    """
    light.strings_to_categoricals()
    try:
        with _open(path) as store:
            _write(store, "/", light)
            if "raw" in store:
                del store["raw"]
            yield ResultFile(store)
    except OSError as error:
        raise OSError(error.errno, f"{path.name} can't be written: {str(error).partition(chr(10))[0]}") from None


def _write(store: Any, key: str, part: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        # anndata's about its next version, whatever format was chosen
        warnings.filterwarnings("ignore", message="zarr v3 autosharding")
        write_elem(store, key, part, dataset_kwargs=options)


def _chosen_format() -> Any:
    """Zarr's format that the user has chosen; anndata 0.14 is to know but the third."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it will
        return getattr(anndata.settings, "zarr_write_format", 3)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if path.suffix == ".h5ad":
        with h5py.File(path, "w") as file:
            yield file
        return
    version = _chosen_format()
    folder = zarr.open_group(str(path), mode="w", zarr_format=version)
    yield folder
    if version == 2:  # the other format has no such thing yet
        zarr.consolidate_metadata(folder.store)
