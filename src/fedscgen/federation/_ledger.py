"""The privacy ledger: what left a site and what reached it, message by message."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from fedscgen.federation._ledger_file import COLUMNS, append_row, keep_settings
from fedscgen.secure import Protection

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fedscgen._types import Buffer, Message

WITHOUT_ARRAYS = "names and settings"


class PrivacyLedger:
    """Records every message of one site as it crosses the wire.

    Parameters
    ----------
    path
        CSV file that every row is appended to as well, so that what left a site is on record even if its process
        dies the next moment. Rows of earlier processes stay in it. Each has the message's SHA-256 besides, and is
        chained to the one before; see :func:`check_ledger`. Its owner alone can read it. ``None``: no file.

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

    def record(
        self,
        sender: str,
        receiver: str,
        message: Message,
        data: Buffer,
        *,
        digest: str | None = None,
        keep: bool = False,
    ) -> None:
        """Add a message. What doesn't say how it is protected counts as not protected.

        Parameters
        ----------
        sender, receiver
            Names of both ends.
        message
            The message.
        data
            The same in the wire format.
        digest
            The SHA-256 of ``data`` in hexadecimal digits, where it is known already.
        keep
            Keep the message's ``meta`` in ``settings.json`` beside the file; the row has the hash of that.

        Raises
        ------
        OSError
            The file can't be written.
        ValueError
            The message says a word that is no :class:`~fedscgen.secure.Protection`, or a round that is no number; the
            file is no ledger; or it or the settings would become larger than any run needs.
        """
        row = {
            "round": _round(message),
            "sender": sender,
            "receiver": receiver,
            "kind": message.kind,
            "shape": _shape(message),
            "bytes": len(data),
            "protection": Protection.of(message).value,
        }
        if self._path is not None:
            evidence = {"sha256": hashlib.sha256(data).hexdigest() if digest is None else digest}
            if keep:
                evidence["settings"] = keep_settings(self._path, message.meta)
            append_row(self._path, {**row, **evidence})
            if keep and not evidence["settings"]:
                raise ValueError(f"the plan of {message.kind!r} is too large, or one of too many: begin another run")
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


def _round(message: Message) -> int | None:
    """The round that a message belongs to, if it is one."""
    number = message.meta.get("round")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise ValueError(f"message {message.kind!r} has the round {number!r:.40}: expected a whole number")
    return number


def _shape(message: Message) -> str:
    """The shape of a single array, or how many arrays and values there are."""
    shapes = [array.shape for array in message.arrays.values()]
    if len(shapes) == 1:
        return str(tuple(shapes[0]))
    if not shapes:
        return WITHOUT_ARRAYS if message.meta else "no content"
    n_values = sum(array.size for array in message.arrays.values())
    return f"{len(shapes)} arrays, {n_values} values"
