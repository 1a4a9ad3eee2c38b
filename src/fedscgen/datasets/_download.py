"""Fetching a published data set once: checked against the record that holds it, then kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen._extras import missing_extra
from fedscgen.datasets._published import find_dataset
from fedscgen.datasets._transfer import TIMEOUT_SECONDS, Partial, Transfer, TransferError, reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import requests

logger = logging.getLogger(__name__)

_RECORD = "11489844"  # https://doi.org/10.5281/zenodo.11489844


@dataclass(frozen=True)
class _RecordFile:
    """What the record states about one of its files."""

    size: int
    md5: str | None


def fetch_dataset(
    name: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    base_url: str = "https://zenodo.org",
    show_progress: bool = True,
) -> Path:
    """The file of a published data set: yours if you have it, else the one fetched before, else fetched now.

    The files are those of https://doi.org/10.5281/zenodo.11489844. A download that breaks off is tried again, up to
    five times; what has arrived stays in the cache, and the next attempt or call continues there. A file enters the
    cache under its own name when it is complete and has the size and MD5 checksum that the record states. Fetch before
    you start processes that share a cache folder: two downloads of one file at a time would spoil each other's.

    Parameters
    ----------
    name
        One of :data:`DATASETS`.
    data_dir
        Folder in which to look for ``NAME.h5ad`` first. Nothing in it is altered or checked.
    cache_dir
        Folder for downloads; by default the user's cache folder, such as ``~/.cache/fedscgen``.
    base_url
        Where the record is served: Zenodo, or a mirror with the same paths.
    show_progress
        Show a progress bar.

    Returns
    -------
    The path of ``NAME.h5ad``.

    Raises
    ------
    ValueError
        There is no such data set.
    FileNotFoundError
        The record doesn't hold the file; the message lists those it holds.
    ConnectionError
        The file could not be fetched; the message says where to get it by hand.
    OSError
        What arrived isn't the file that the record states; it has been deleted.
    ModuleNotFoundError
        The extra ``benchmark`` isn't installed.
    """
    file_name = f"{find_dataset(name).name}.h5ad"
    if data_dir is not None:
        own = Path(data_dir) / file_name
        if own.exists():
            return own
        logger.info("%s does not exist: looking in the cache", own)
    target = _cache_folder(cache_dir) / file_name
    if not target.exists():
        _download(target, base_url.rstrip("/"), show_progress=show_progress)
    return target


def _cache_folder(cache_dir: str | PathLike[str] | None) -> Path:
    try:
        import pooch
    except ModuleNotFoundError as missing:
        raise missing_extra("published data sets are fetched with", str(missing.name), "benchmark") from missing
    return Path(pooch.os_cache("fedscgen") if cache_dir is None else cache_dir)


def _download(target: Path, base_url: str, *, show_progress: bool) -> None:
    import requests
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Partial(target.with_name(target.name + ".part"))
    page = f"{base_url}/records/{_RECORD}"
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with requests.Session() as session, Progress(*columns, disable=not show_progress) as progress:
        files = _record_files(session, f"{base_url}/api/records/{_RECORD}")
        if files is not None and target.name not in files:
            raise _no_such_file(target.name, page, files)
        stated = files[target.name] if files is not None else None
        task = progress.add_task(target.name, total=stated.size if stated else None)
        transfer = Transfer(
            session,
            f"{page}/files/{target.name}",
            partial,
            size=stated.size if stated else None,
            checked=stated is not None and stated.md5 is not None,
            on_progress=lambda here, total: progress.update(task, completed=here, total=total),
        )
        try:
            transfer.run()
        except FileNotFoundError as error:
            raise _no_such_file(target.name, page, files) from error
        except TransferError as error:
            raise ConnectionError(
                f"{target.name} could not be fetched from {base_url} ({error}; {partial.size:,} bytes are kept for "
                f"the next try). {_advise(page)}"
            ) from error
    _check(partial, stated, target.name, page)
    partial.finish(target)


def _record_files(session: requests.Session, url: str) -> Mapping[str, _RecordFile] | None:
    """The record's files by name; ``None`` if it can't be asked."""
    import requests

    try:
        answer = session.get(url, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return {
            file["key"]: _RecordFile(size=int(file["size"]), md5=_md5(file.get("checksum", "")))
            for file in answer.json()["files"]
        }
    except requests.RequestException as error:
        logger.info("the list of files at %s can't be had: %s", url, reason(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.info("the list of files at %s is not understood: %r", url, error)
    return None


def _md5(checksum: str) -> str | None:
    kind, _, digest = checksum.partition(":")
    return digest.lower() if kind == "md5" else None


def _check(partial: Partial, stated: _RecordFile | None, name: str, page: str) -> None:
    """Delete and refuse what isn't the record's file, or no HDF5 file at all."""
    import h5py

    wrong = _difference(partial, stated)
    if not wrong and not h5py.is_hdf5(partial.path):
        wrong = f"its {partial.size:,} bytes are not an HDF5 file"
    if wrong:
        partial.discard()
        raise OSError(f"{name} arrived damaged, and was deleted: {wrong}. Try again. {_advise(page)}")
    if stated is None or stated.md5 is None:
        logger.warning("%s was fetched but not compared with a checksum, which %s did not state", name, page)


def _difference(partial: Partial, stated: _RecordFile | None) -> str:
    import pooch

    if stated is not None and partial.size != stated.size:
        return f"it has {partial.size:,} bytes, but the record states {stated.size:,}"
    if stated is not None and stated.md5 is not None:
        md5 = pooch.file_hash(str(partial.path), alg="md5")
        return "" if md5 == stated.md5 else f"its MD5 checksum is {md5}, but the record states {stated.md5}"
    return ""


def _no_such_file(name: str, page: str, files: Mapping[str, _RecordFile] | None) -> FileNotFoundError:
    held = "its list of files can't be had" if files is None else f"it holds {', '.join(files) or 'no file'}"
    return FileNotFoundError(f"{page} does not serve {name}; {held}. {_advise(page)}")


def _advise(page: str) -> str:
    return (
        f"To do it by hand: download the file (or unpack it, if it is in an archive) from {page} into a folder, and "
        "name the folder as data_dir"
    )
