"""The federation's messages inside Flower's: bytes in, the same bytes out; nothing is ever unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import Array, ArrayRecord, RecordDict

from fedscgen._types import WireFormatError

if TYPE_CHECKING:
    from fedscgen._types import Buffer

_KEY, _SERIALIZATION = "fedscgen", "fedscgen message"


def wrap(data: Buffer) -> RecordDict:
    """Put a message in the wire format into Flower's records, as an array of bytes, which Flower sends in pieces."""
    array = Array("uint8", (len(data),), _SERIALIZATION, bytes(data))
    return RecordDict({_KEY: ArrayRecord({_KEY: array})})


def unwrap(content: RecordDict) -> bytes:
    """Take out what :func:`wrap` has put in.

    Raises
    ------
    WireFormatError
        The records hold no message of this package.
    """
    record = content.get(_KEY)
    if not isinstance(record, ArrayRecord) or _KEY not in record or record[_KEY].stype != _SERIALIZATION:
        raise WireFormatError(f"not a fedscgen message: Flower's records hold {sorted(content)}")
    return record[_KEY].data
