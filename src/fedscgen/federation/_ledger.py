"""The privacy ledger: what left a site and what reached it, message by message."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from fedscgen.secure import Protection

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fedscgen._types import Message

COLUMNS = ["round", "sender", "receiver", "kind", "shape", "bytes", "protection"]
WITHOUT_ARRAYS = "names and settings"


class PrivacyLedger:
    """Records every message of one site as it crosses the wire.

    Parameters
    ----------
    path
        CSV file that every row is appended to as well, so that what left a site is on record even if its process
        dies the next moment. Rows of earlier processes stay in it. ``None``: no file.

    Attributes
    ----------
    columns
        Names of what is recorded of a message.
    without_arrays
        The ledger's word for the shape of a message with names and settings alone.
    """

    columns: ClassVar[list[str]] = COLUMNS
    without_arrays: ClassVar[str] = WITHOUT_ARRAYS

    def __init__(self, path: Path | None = None) -> None:
        self._rows: list[dict[str, Any]] = []
        self._path = path

    def record(self, sender: str, receiver: str, message: Message, n_bytes: int) -> None:
        """Add a message of ``n_bytes`` bytes. What doesn't say how it is protected counts as not protected.

        Raises
        ------
        OSError
            The file can't be written.
        ValueError
            It says a word that is no :class:`~fedscgen.secure.Protection`.
        """
        row = {
            "round": message.meta.get("round"),
            "sender": sender,
            "receiver": receiver,
            "kind": message.kind,
            "shape": _shape(message),
            "bytes": n_bytes,
            "protection": Protection.of(message).value,
        }
        if self._path is not None:
            _append(self._path, row)
        self._rows.append(row)

    def to_frame(self) -> pd.DataFrame:
        """All messages that this ledger has recorded, in order.

        Columns: ``round`` (from 1; missing outside training), ``sender``, ``receiver``, ``kind``, ``shape``, ``bytes``
        and ``protection``.
        """
        return as_frame(self._rows)


def join_ledgers(ledgers: Iterable[PrivacyLedger]) -> pd.DataFrame:
    """Several sites' ledgers as one frame."""
    return as_frame([row for ledger in ledgers for row in ledger._rows])


def as_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with the ledger's columns and types."""
    return pd.DataFrame(rows, columns=COLUMNS).astype({"round": "Int64", "bytes": "int64"})


def _append(path: Path, row: dict[str, Any]) -> None:
    """Write a row, below a header if the file is new; it has left the process when this returns."""
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def _shape(message: Message) -> str:
    """The shape of a single array, or how many arrays and values there are."""
    shapes = [array.shape for array in message.arrays.values()]
    if len(shapes) == 1:
        return str(tuple(shapes[0]))
    if not shapes:
        return WITHOUT_ARRAYS if message.meta else "no content"
    n_values = sum(array.size for array in message.arrays.values())
    return f"{len(shapes)} arrays, {n_values} values"
