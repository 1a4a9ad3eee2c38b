"""Arrays from a file that somebody else has made: all that it claims is checked before anything is allocated for it."""

from __future__ import annotations

import math
import stat
import struct
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np

from fedscgen._message import LONGEST_NAME, MOST_ARRAYS, MOST_DIMENSIONS, MOST_HEADER_BYTES, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from fedscgen._types import NamedArrays

Shapes = dict[str, tuple[int, ...]]

_SUFFIX = ".npy"
_LONGEST_HEADER = 10_000
_MOST_OF_EMPTY = 2**20  # what the other dimensions of an array without values may multiply to
_MOST_DIRECTORY = 2**22
_LINK = 0xA000
_ENCRYPTED = 1
_END = struct.Struct("<4s4H2LH")
_END_64_AND_LOCATOR = struct.Struct("<4sQ2H2L4Q4sLQL")


def open_regular(path: Path) -> IO[bytes]:
    """Open a file that is one: no link, device or pipe.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It is something else.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is no file but a link, a folder or a device: copy the file itself")
    return path.open("rb")


def read_description(path: Path) -> Any:
    """What a JSON file holds, if it is neither longer nor deeper than a message's header may be.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It is too large, or no JSON.
    """
    with open_regular(path) as file:
        content = file.read(MOST_HEADER_BYTES + 1)
    return read_json(content)


def read_arrays(path: Path, check: Callable[[Shapes], None]) -> NamedArrays:
    """Arrays as ``np.savez`` writes them: numbers alone, and stored as they are.

    Parameters
    ----------
    path
        The file.
    check
        Is given all shapes by name before an array is read, and may refuse them.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It holds something else than what it should.
    """
    with open_archive(path) as archive:
        members = {_name_array(member): member for member in archive.infolist()}
        layouts = {name: _read_layout(archive, member) for name, member in members.items()}
        check({name: shape for name, (shape, _, _, _) in layouts.items()})
        return {name: _read_array(archive, members[name], *layout) for name, layout in layouts.items()}


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file whose members are what they seem: each once, stored as it is, and together no larger than the file.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It is none such.
    """
    with open_regular(path) as file:
        size = _check_directory(file, path.name)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_members(archive.infolist(), size, path.name)
                yield archive
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
            raise ValueError(f"{path.name} is a damaged zip file: {error}") from error


def _check_directory(file: IO[bytes], name: str) -> int:
    """Refuse a directory that would be too large to list, and give the file's size."""
    size = file.seek(0, 2)
    n_bytes = min(size, _END_64_AND_LOCATOR.size + _END.size)
    file.seek(size - n_bytes)
    tail = file.read()
    if size < _END.size or not tail[-_END.size :].startswith(b"PK\5\6"):
        raise ValueError(f"{name} is no zip file, or was cut off")
    directory = _END.unpack(tail[-_END.size :])[5]
    if n_bytes == _END_64_AND_LOCATOR.size + _END.size:
        wide = _END_64_AND_LOCATOR.unpack(tail[: _END_64_AND_LOCATOR.size])
        if wide[10] == b"PK\6\7":
            directory = max(wide[8], 0 if directory == 2**32 - 1 else directory)
    if directory > _MOST_DIRECTORY:
        raise ValueError(f"{name} has a directory of {directory} bytes: {_MOST_DIRECTORY} is the most")
    return size


def _check_members(members: list[zipfile.ZipInfo], size: int, name: str) -> None:
    if len(members) > MOST_ARRAYS:
        raise ValueError(f"{name} has {len(members)} members: {MOST_ARRAYS} is the most")
    seen = set()
    for member in members:
        if member.filename in seen:
            raise ValueError(f"{name} has {member.filename!r:.80} twice")
        seen.add(member.filename)
        _check_member_name(member, name)
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ValueError(f"{name} has {member.filename!r} compressed: store it as it is")
        if member.flag_bits & _ENCRYPTED or (member.external_attr >> 16) & 0xF000 == _LINK:
            raise ValueError(f"{name} has {member.filename!r}, which is encrypted or a link")
    total = sum(member.file_size for member in members)
    if total > size:
        raise ValueError(f"{name} claims to hold {total} bytes in {size}")


def _check_member_name(member: zipfile.ZipInfo, name: str) -> None:
    told = member.orig_filename
    if (
        not told.isprintable()
        or len(told) > LONGEST_NAME + len(_SUFFIX)
        or told.startswith("/")
        or "\\" in told
        or ":" in told
        or ".." in told.split("/")
    ):
        raise ValueError(f"{name} has a member of the name {told!r:.80}, which is none of an array")


def _name_array(member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(_SUFFIX):
        raise ValueError(f"{member.filename!r} is no array: its name doesn't end with {_SUFFIX}")
    return member.filename.removesuffix(_SUFFIX)


def _read_layout(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, str, int]:
    """Shape, dtype, order and where the values begin, which take the rest of the member to the byte."""
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"its format is {version}, expected (1, 0)")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_LONGEST_HEADER)
        except (ValueError, TypeError, KeyError, RecursionError, MemoryError, SyntaxError) as error:
            raise ValueError(f"{member.filename!r} is no array: {error}") from error
        start = file.tell()
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise ValueError(f"{member.filename!r} holds {dtype}: expected numbers")
    if len(shape) > MOST_DIMENSIONS or any(isinstance(n, bool) or not 0 <= n < 2**63 for n in shape):
        raise ValueError(f"{member.filename!r} has a shape of {len(shape)} dimensions, or one that is no size")
    if 0 in shape and math.prod(n for n in shape if n) > _MOST_OF_EMPTY:
        raise ValueError(f"{member.filename!r} holds nothing in a shape of huge dimensions")
    if start + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(
            f"{member.filename!r} claims the shape {shape}, which doesn't fit its {member.file_size} bytes"
        )
    return shape, dtype, "F" if fortran else "C", start


def _read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype, order: str, start: int
) -> np.ndarray:
    values = np.empty(math.prod(shape), dtype)
    rest = values.view(np.uint8).data
    with archive.open(member) as file:
        file.read(start)
        while rest:
            n_bytes = file.readinto(rest)  # type: ignore[attr-defined]  # of BufferedIOBase
            if not n_bytes:
                raise ValueError(f"{member.filename!r} ends early")
            rest = rest[n_bytes:]
        file.read(1)  # compares the checksum
    return values.reshape(shape, order="F" if order == "F" else "C")


def check_shapes(found: Shapes, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse arrays of other names or shapes.

    Raises
    ------
    ValueError
        The message names one.
    """
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{name!r} has shape {found.get(name, 'none, as it is missing')}, expected "
                f"{expected.get(name, 'no such array')}"
            )
