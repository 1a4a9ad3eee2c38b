"""What crosses the wire: named arrays and JSON, never pickle, and nothing larger or deeper than the limits here."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

Buffer = bytes | bytearray | memoryview

MOST_HEADER_BYTES = 2**25
MOST_VALUES = 1_000_000
MOST_TEXTS = 500_000
MOST_LEVELS = 32
MOST_ARRAYS = 4096
MOST_DIMENSIONS = 8
LONGEST_TEXT = 10_000
LONGEST_NAME = 256
"""Of a message's kind, or of an array."""

_MOST_OF_EMPTY = 2**20  # what the other dimensions of an array without values may multiply to
_LARGEST_WHOLE = 2**64 - 1
_MAGIC = b"FSG1"
_HEADER_LENGTH = struct.Struct("<I")
_START = len(_MAGIC) + _HEADER_LENGTH.size
_DTYPES = ("<f4", "<f8", "<i8", "<u8", "|u1", "|b1")
_HEADER_KEYS = {"kind", "meta", "arrays"}
# possessive, as backtracking would take memory for every character
_QUOTED = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class WireFormatError(ValueError):
    """Bytes that are not a message, or not a whole one, or more than one may hold."""


@dataclass(frozen=True)
class Message:
    """One thing that crosses the wire.

    Parameters
    ----------
    kind
        What it is; the privacy ledger lists it under this name.
    meta
        JSON-serialisable values: names, settings.
    arrays
        Numeric arrays by name.
    """

    kind: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise, as :meth:`to_buffer` does."""
        return bytes(self.to_buffer())

    def to_buffer(self) -> memoryview:
        """Serialise: magic, header length, JSON header, then each array's bytes in C order.

        In numpy's memory, which for large arrays costs a fraction of what a ``bytes`` object does.

        Raises
        ------
        WireFormatError
            An array's dtype may not cross the wire (only float32/64, int64, uint64, uint8, bool may), or something is
            beyond the limits that :meth:`from_bytes` holds to.
        """
        header: dict[str, Any] = {"kind": self.kind, "meta": dict(self.meta), "arrays": []}
        parts = []
        for name, array in self.arrays.items():
            array = np.asarray(array)
            dtype = array.dtype.newbyteorder("<").str
            if dtype not in _DTYPES:
                raise WireFormatError(f"array {name!r} has dtype {array.dtype}, which may not cross the wire")
            header["arrays"].append([name, dtype, list(array.shape)])
            parts.append(np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8))
        _check_header(header)
        _check_values(header["meta"])
        try:
            encoded = json.dumps(header, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise WireFormatError(f"message {self.kind!r} can't be written: {error}") from error
        _check_size(encoded)
        start = np.frombuffer(_MAGIC + _HEADER_LENGTH.pack(len(encoded)) + encoded, dtype=np.uint8)
        return np.concatenate([start, *parts]).data

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Read what :meth:`to_bytes` or :meth:`to_buffer` wrote; arrays are views of ``data``.

        Raises
        ------
        WireFormatError
            ``data`` is truncated, too long, or not a message; or it is beyond a limit, which is known before anything
            is allocated for it.
        """
        header, offset = _read_header(data)
        arrays = {}
        for name, dtype, shape in header["arrays"]:
            arrays[name], offset = _read_array(data, offset, name, dtype, shape)
        if offset != len(data):
            raise WireFormatError(f"{len(data) - offset} bytes follow the last array")
        return cls(header["kind"], header["meta"], arrays)


def read_json(encoded: bytes) -> Any:
    """JSON within the limits of a header, with finite values, and with names that occur once.

    Raises
    ------
    WireFormatError
        It is none.
    """
    _check_size(encoded)
    try:
        content = json.loads(encoded.decode(), object_pairs_hook=_read_object, parse_constant=_refuse_constant)
    except WireFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireFormatError(f"not JSON: {error}") from error
    _check_values(content)
    return content


def _read_header(data: Buffer) -> tuple[dict[str, Any], int]:
    """The header, which is as it should be, and where it ends."""
    if len(data) < _START or data[: len(_MAGIC)] != _MAGIC:
        raise WireFormatError("not a fedscgen message: it does not begin with the format's mark")
    (length,) = _HEADER_LENGTH.unpack(data[len(_MAGIC) : _START])
    if length > MOST_HEADER_BYTES:
        raise WireFormatError(f"a header of {length} bytes is announced: {MOST_HEADER_BYTES} is the most")
    if _START + length > len(data):
        raise WireFormatError(f"truncated: the header needs {length} bytes, {len(data) - _START} are there")
    header = read_json(bytes(data[_START : _START + length]))
    _check_header(header)
    return header, _START + length


def _check_size(encoded: bytes) -> None:
    """Refuse a header that would become too much, or nest too deep, by its brackets and commas alone."""
    if len(encoded) > MOST_HEADER_BYTES:
        raise WireFormatError(f"a header of {len(encoded)} bytes: {MOST_HEADER_BYTES} is the most")
    n_texts = encoded.count(b'"') // 2
    if n_texts > MOST_TEXTS:  # taking them out would take memory for each
        raise WireFormatError(f"a header of about {n_texts} texts: {MOST_TEXTS} is the most")
    frame = _QUOTED.sub(b"", encoded)
    brackets = frame.translate(None, _NOT_BRACKETS)
    n_values = frame.count(b",") + len(brackets) // 2 + 1
    if n_values > MOST_VALUES:
        raise WireFormatError(f"a header of about {n_values} values: {MOST_VALUES} is the most")
    opens = np.isin(np.frombuffer(brackets, dtype=np.uint8), list(b"[{"))
    n_levels = int(np.where(opens, np.int32(1), np.int32(-1)).cumsum(dtype=np.int32).max(initial=0))
    if n_levels > MOST_LEVELS:
        raise WireFormatError(f"a header of {n_levels} levels: {MOST_LEVELS} is the most")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise WireFormatError("a name occurs twice in one object")
    return entries


def _refuse_constant(name: str) -> NoReturn:
    raise WireFormatError(f"{name} is no value of a message")


def _check_header(header: Any) -> None:
    """Refuse a header that isn't of a message, or holds what may not cross the wire."""
    if not isinstance(header, dict) or set(header) != _HEADER_KEYS:
        raise WireFormatError("not a fedscgen message: its header has other parts than kind, meta and arrays")
    _check_name("kind", header["kind"])
    if not isinstance(header["meta"], dict):
        raise WireFormatError(f"meta is {type(header['meta']).__name__}: expected entries by name")
    _check_arrays(header["arrays"])


def _check_arrays(arrays: Any) -> None:
    if not isinstance(arrays, list) or len(arrays) > MOST_ARRAYS:
        raise WireFormatError(f"not a list of at most {MOST_ARRAYS} arrays")
    names = set()
    for entry in arrays:
        if not isinstance(entry, list) or len(entry) != 3:
            raise WireFormatError("an array is listed without its name, dtype and shape")
        name, dtype, shape = entry
        _check_name("an array's name", name)
        if name in names:
            raise WireFormatError(f"array {name!r} is there twice")
        names.add(name)
        if dtype not in _DTYPES:
            raise WireFormatError(f"array {name!r} of dtype {dtype!r:.40} may not cross the wire")
        _check_shape(name, shape)


def _check_shape(name: str, shape: Any) -> None:
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise WireFormatError(f"array {name!r} has no shape of at most {MOST_DIMENSIONS} dimensions")
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**63 for n in shape):
        raise WireFormatError(f"array {name!r} has a dimension that is no size")
    if 0 in shape and math.prod(n for n in shape if n) > _MOST_OF_EMPTY:
        raise WireFormatError(f"array {name!r} holds nothing in a shape of huge dimensions")


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise WireFormatError(f"{what} is no text of at most {LONGEST_NAME} characters")
    _check_texts([name])


def _check_values(value: Any) -> None:
    """Refuse texts that are too long or can't be encoded, and numbers that aren't finite or don't fit 64 bits.

    Values of one type are looked at together, which is ten times as fast as one by one.
    """
    left: list[Any] = [[value]]
    while left:
        values = left.pop()
        for kind in set(map(type, values)):
            alike: list[Any] = [item for item in values if type(item) is kind]
            if issubclass(kind, dict):
                left.extend([*item, *item.values()] for item in alike)
            elif issubclass(kind, (list, tuple)):
                left.extend(alike)
            else:
                _check_alike(kind, alike)


def _check_alike(kind: type, values: list[Any]) -> None:
    if issubclass(kind, str):
        _check_texts(values)
    elif issubclass(kind, float) and not all(map(math.isfinite, values)):
        raise WireFormatError("a number is not finite, which is no value of a message")
    elif issubclass(kind, int) and max(max(values), -min(values)) > _LARGEST_WHOLE:
        raise WireFormatError("a whole number doesn't fit 64 bits")


def _check_texts(texts: list[str]) -> None:
    longest = max(map(len, texts))
    if longest > LONGEST_TEXT:
        raise WireFormatError(f"a text of {longest} characters: {LONGEST_TEXT} is the most")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise WireFormatError("a text holds half a character (a lone surrogate)") from None


def _read_array(data: Buffer, offset: int, name: str, dtype: str, shape: list[int]) -> tuple[np.ndarray, int]:
    size = math.prod(shape)
    end = offset + size * np.dtype(dtype).itemsize
    if end > len(data):
        raise WireFormatError(f"truncated: array {name!r} ends at byte {end}, the message at {len(data)}")
    array = np.frombuffer(data, dtype, count=size, offset=offset)
    if dtype == "|b1" and (array.view(np.uint8) > 1).any():
        raise WireFormatError(f"array {name!r} of truth values holds others")
    return array.reshape(shape), end
