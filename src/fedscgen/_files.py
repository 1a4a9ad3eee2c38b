"""Folders that one run at a time may use, and outputs that appear when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAKE_ROOM = "make room, or choose another place"


def tell_reason(error: OSError) -> str:
    """Why something can't be written, and what to do where there is no room."""
    reason = (error.strerror or str(error)).partition("\n")[0]
    return f"{reason}: {_MAKE_ROOM}" if error.errno in _NO_ROOM else reason


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder. The lock ends with the block or with the process, however that ends.

    Raises
    ------
    BlockingIOError
        Another run is writing to it.
    """
    from fcntl import LOCK_EX, LOCK_NB, flock  # not on Windows, where all else here works

    with (folder / ".lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another run is writing to {folder}: wait for it, or choose another folder"
            ) from None
        yield


def check_readable(path: Path) -> None:
    """Refuse a file that isn't there or holds nothing, before anything is loaded that could read it.

    Raises
    ------
    FileNotFoundError, ValueError, PermissionError
        There is none, it is empty or something else, or it belongs to others.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a folder: copy what it gives into one")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: its download or copy may have stopped")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} can't be read: its owner hasn't permitted it")


@contextmanager
def create_whole(path: Path, *, overwrite: bool, remedy: str) -> Iterator[Path]:
    """Give a temporary place for a file or folder, and move it to ``path`` when the block has ended well.

    Raises
    ------
    FileExistsError
        ``path`` exists and may not be overwritten; the message ends with the remedy.
    FileNotFoundError
        The block has made nothing. Whatever was at ``path`` is still there.
    OSError
        Nothing can be made in that folder.
    """
    if _exists(path) and not overwrite:
        raise FileExistsError(f"{path} exists: {remedy}")
    _check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as directory:
        target = Path(directory) / path.name
        yield target
        if not target.exists():
            raise FileNotFoundError(f"nothing was made to become {path}: what was there before, if anything, stays")
        if path.exists():
            path.rename(Path(directory) / "replaced")
        target.rename(path)


def check_room(path: Path, n_bytes: int) -> None:
    """Refuse to begin a file for which there is no room; nothing stays at its place.

    Some libraries don't survive that room ends while they write.

    Raises
    ------
    OSError
        The disk, a quota or a limit of the process doesn't hold so many bytes.
    """
    try:
        with path.open("wb") as file:
            _reserve(file.fileno(), path, max(1, n_bytes))
    except OSError as error:
        if error.errno in _NO_ROOM:
            need = f"{path.name} needs up to {n_bytes / 1e6:.3g} MB, for which there is no room ({error.strerror})"
            raise OSError(error.errno, f"{need}: {_MAKE_ROOM}") from None
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that can't tell
            raise
    finally:
        path.unlink(missing_ok=True)


def _reserve(file: int, path: Path, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)
    elif shutil.disk_usage(path.parent).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError as error:
        raise PermissionError(f"{path} can't be made: its folder may not be read") from error


def _check_writable(path: Path) -> None:
    """Refuse a place in which nothing can be made."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} can't be made: {folder} is a file; choose a place in a folder")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"{path} can't be made: {folder} can't be written to ({error.strerror})") from error


@contextmanager
def keep_private() -> Iterator[None]:
    """Let nobody but the owner read what is made in this block: files get mode 0600 and folders 0700."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file beside its place, have it reach the disk, and rename it.

    If it is private, its owner alone can read it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
