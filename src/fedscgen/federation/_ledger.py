"""The privacy ledger: what left a site and what reached it, message by message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedscgen._types import Message

COLUMNS = ["round", "sender", "receiver", "kind", "shape", "bytes", "protection"]
UNPROTECTED = "none"


class PrivacyLedger:
    """Records every message of one site as it crosses the wire."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def record(self, sender: str, receiver: str, message: Message, n_bytes: int) -> None:
        """Add a message of ``n_bytes`` bytes. What doesn't say how it is protected counts as not protected."""
        self._rows.append(
            {
                "round": message.meta.get("round"),
                "sender": sender,
                "receiver": receiver,
                "kind": message.kind,
                "shape": _shape(message),
                "bytes": n_bytes,
                "protection": message.meta.get("protection", UNPROTECTED),
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """All messages in order: columns ``round`` (from 1; missing outside training), ``sender``, ``receiver``,
        ``kind``, ``shape``, ``bytes`` and ``protection``.
        """  # noqa: D205
        return as_frame(self._rows)


def joined(ledgers: Iterable[PrivacyLedger]) -> pd.DataFrame:
    """Several sites' ledgers as one frame."""
    return as_frame([row for ledger in ledgers for row in ledger._rows])


def as_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with the ledger's columns and types."""
    return pd.DataFrame(rows, columns=COLUMNS).astype({"round": "Int64", "bytes": "int64"})


def _shape(message: Message) -> str:
    """The shape of a single array, or how many arrays and values there are."""
    shapes = [array.shape for array in message.arrays.values()]
    if len(shapes) == 1:
        return str(tuple(shapes[0]))
    if not shapes:
        return "names and settings" if message.meta else "no content"
    n_values = sum(array.size for array in message.arrays.values())
    return f"{len(shapes)} arrays, {n_values} values"
