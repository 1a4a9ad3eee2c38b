"""Folders that one run at a time may use, and outputs that appear when they are complete."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@contextmanager
def create_whole(path: Path, *, overwrite: bool, remedy: str) -> Iterator[Path]:
    """Give a temporary place for a file or folder, and move it to ``path`` when the block has ended well.

    Raises
    ------
    FileExistsError
        ``path`` exists and may not be overwritten; the message ends with the remedy.
    FileNotFoundError
        The block has made nothing. Whatever was at ``path`` is still there.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: {remedy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as directory:
        target = Path(directory) / path.name
        yield target
        if not target.exists():
            raise FileNotFoundError(f"nothing was made to become {path}: what was there before, if anything, stays")
        if path.exists():
            path.rename(Path(directory) / "replaced")
        target.rename(path)


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
