"""The engine pickles what it sends. Nothing is unpickled here: bytes are read out of the one form that they have."""

from __future__ import annotations

from pickletools import genops

_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_AROUND = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "STOP"}
_MOST_PARTS = 8


class FrameError(ValueError):
    """What came is not pickled bytes."""


def read_frame(data: bytes) -> bytes:
    """The bytes that were pickled.

    Parameters
    ----------
    data
        What :func:`pickle.dumps` makes of bytes, by protocol 3 or later.

    Raises
    ------
    FrameError
        It is anything else, such as what would call a function when it is unpickled.
    """
    found: list[bytes] = []
    end: int | None = 0
    try:
        for count, (part, value, end) in enumerate(genops(data)):
            if part.name not in _BYTES | _AROUND or count == _MOST_PARTS:
                raise FrameError(f"it holds a pickle of something else than bytes: {part.name} at byte {end}")
            if part.name in _BYTES:
                found.append(bytes(value or b""))
    except FrameError:
        raise
    except ValueError as error:
        raise FrameError(f"it holds no pickle: {error}") from error
    if len(found) != 1 or end != len(data) - 1:
        raise FrameError(f"it holds a pickle of something else than bytes: {len(found)} values in {len(data)} bytes")
    return found[0]
