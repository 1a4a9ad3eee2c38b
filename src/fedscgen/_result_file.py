"""A result that is written while it is computed, for cells that memory needn't hold."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import zarr
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from fedscgen._files import tell_reason
from fedscgen._rows import count_entries, in_rows, row_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

    from fedscgen._rows import Matrix

SUFFIXES = (".h5ad", ".zarr")
_VALUES_AT_A_TIME = 2**16  # in a file's chunk


class _Survivor(io.FileIO):
    """A file in which HDF5 never sees a write fail, since it ends the process later; instead the failure is noted."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it or, once something has failed, nothing."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Read; what couldn't be written is zero."""
        view = memoryview(buffer).cast("B")
        n_read = super().readinto(view)
        view[n_read:] = bytes(len(view) - n_read)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Change the size, unless something has failed."""
        try:
            return self.tell() if self.failure is not None else super().truncate(size)
        except OSError as error:
            self.failure = error
            return self.tell()

    def check(self) -> None:
        """Raise what has failed, if anything."""
        if self.failure is not None:
            raise self.failure


@contextmanager
def create_h5(path: Path) -> Iterator[tuple[h5py.File, _Survivor]]:
    """Begin a file, and give it with what tells whether all could be written so far; at the end that is told anyway.

    Raises
    ------
    OSError
        Something couldn't be written. HDF5 goes on well, where it would end the process if it knew.
    """
    with _Survivor(path, "w+") as place:
        with h5py.File(place, "w") as file:
            yield file, place
        place.check()


class ResultFile:
    """A file or folder that takes matrices some rows at a time; see :func:`write_result`."""

    def __init__(self, store: Any, place: _Survivor | None) -> None:
        self._store, self._place = store, place
        self._sparse: dict[str, Any] = {}

    def append(self, key: str, rows: Matrix, n_entries: int | None = None) -> None:
        """Add rows, all sparse or all dense, to the matrix of this name, such as ``"layers/corrected"``.

        ``n_entries`` are those that a sparse matrix will have, at most; ``None`` if nobody knows.
        """
        if self._place is not None:
            self._place.check()
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
        with _open(path) as (store, place):
            _write(store, "/", light)
            if "raw" in store:
                del store["raw"]
            yield ResultFile(store, place)
    except OSError as error:
        raise describe_failure(path, error) from None


def describe_failure(path: Path, error: OSError) -> OSError:
    """What is said of a file that can't be written."""
    return OSError(error.errno, f"{path.name} can't be written: {tell_reason(error)}")


def write_adata(store: Any, adata: AnnData, **options: Any) -> None:
    """Write cells as ``AnnData.write_h5ad`` does, into a file that is open."""
    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    _write(store, "/", adata, **options)


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
        with create_h5(path) as opened:
            yield opened
        return
    version = _chosen_format()
    folder = zarr.open_group(str(path), mode="w", zarr_format=version)
    yield folder, None
    if version == 2:  # the other format has no such thing yet
        zarr.consolidate_metadata(folder.store)
