"""A ledger as a file that can't be altered unseen: every row is chained to the one before.

A line ends with its chain: the SHA-256, in hexadecimal digits, of the chain of the line before, a line break, and the
line up to the comma before its own chain. Before the first line stands the SHA-256 of the header.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd

from fedscgen._files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

COLUMNS = ["round", "sender", "receiver", "kind", "shape", "bytes", "protection"]
EVIDENCE = ["sha256", "settings", "chain"]
"""What the file has besides: hashes of the message and of the settings that are kept, and the chain."""

UNFINISHED = "unfinished line"
"""Kind of a row that stands for one whose writing was cut short; its hash is that of what had been written."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a spreadsheet would execute, and what escapes it
_HEADER = ",".join([*COLUMNS, *EVIDENCE])
_CHAIN = re.compile(rb",([0-9a-f]{64})\n")
_CHAIN_LENGTH = 66
_MOST_ROWS_BYTES, _MOST_SETTINGS_BYTES, _MOST_SETTINGS = 2**28, 2**22, 16
"""So much a run may have a site keep: rows for 10,000 rounds take a tenth of it, and settings a thousandth."""


@dataclass(frozen=True)
class LedgerCheck:
    """What can be told of a ledger's file.

    Parameters
    ----------
    n_rows
        Rows that are chained to each other, from the first.
    head
        Chain of the last of these: whoever has noted it can tell later whether rows were cut off.
    fault
        What was altered, as a sentence that names the first line; empty if nothing was.
    unfinished
        Whether the last line was not written to its end, as when a machine stops.
    """

    n_rows: int
    head: str
    fault: str = ""
    unfinished: bool = False


def check_ledger(path: Path, head: str | None = None) -> LedgerCheck:
    """Compute a ledger's chain anew, and compare the settings that are kept beside it with their hashes.

    Parameters
    ----------
    path
        The file.
    head
        A chain that was noted before; it must be of one of the rows.

    Raises
    ------
    OSError
        The file can't be read.
    ValueError
        It is no ledger with a chain.
    """
    lines = _split(_read(path))
    unfinished = bool(lines) and not lines[-1].endswith("\n")
    whole = lines[:-1] if unfinished else lines
    if not whole or whole[0] != _HEADER + "\n":
        raise ValueError(f"{path} is no ledger with a chain: its first line isn't {_HEADER}")
    chains = [_hash(_HEADER)]
    fault = ""
    for line in whole[1:]:
        fault = _find_fault(line, chains[-1], whole) or _find_settings_fault(path, line)
        if fault:
            number = 1 + sum(part.count("\n") for part in whole[: len(chains)])
            fault = f"line {number} {fault}"
            break
        chains.append(_chain_of(line))
    if not fault and head is not None and head not in chains:
        fault = f"no row has the chain {head}: rows were cut off, or all were written anew"
    return LedgerCheck(len(chains) - 1, chains[-1], fault, unfinished)


def read_ledger(path: Path) -> pd.DataFrame:
    """A ledger's rows as text, with or without a chain, and without the escapes of the file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    OSError
        The file can't be read.
    ValueError
        It is no ledger.
    """
    rows = list(csv.reader(io.StringIO(_read(path), newline="")))
    header, rows = (rows[0], rows[1:]) if rows else ([], [])
    if header not in (COLUMNS, [*COLUMNS, *EVIDENCE]):
        raise ValueError(f"{path} is no privacy ledger: its columns are {', '.join(header)}")
    unescape = _unescape if header != COLUMNS else str
    cells = [[unescape(cell) for cell in row] for row in rows if len(row) == len(header)]
    return pd.DataFrame(cells, columns=header, dtype=object)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row, below a header if the file is new; it has left the process when this returns.

    Raises
    ------
    OSError
        The file can't be written.
    ValueError
        The file is something else.
    """
    with _open_private(path) as file:
        previous = _find_head(path, file)
        body = _encode([row.get(name) for name in [*COLUMNS, *EVIDENCE[:-1]]])
        file.write(f"{body},{_hash(previous, body)}\n".encode())


def keep_settings(path: Path, meta: Mapping[str, Any]) -> str:
    """Keep what a site was sent as settings beside its ledger, as canonical JSON, and give the hash of it.

    Others than those of before go into a further file, as rows name them all. What is too large, or one of too many, is
    not kept, and has no hash.
    """
    content = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    digest = hashlib.sha256(content).hexdigest()
    if digest not in _kept(path):
        place = path.with_name("settings.json")
        number = 2
        while place.exists():
            place, number = path.with_name(f"settings-{number}.json"), number + 1
        if len(content) > _MOST_SETTINGS_BYTES or number > _MOST_SETTINGS + 1:
            return ""
        write_whole(place, content, private=True)
    return digest


def _kept(path: Path) -> dict[str, Path]:
    """Files with settings beside a ledger, by hash."""
    return {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in sorted(path.parent.glob("settings*.json"))}


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no privacy ledger: {error}") from error


def _split(text: str) -> list[str]:
    """Records with their ends; quoted line breaks belong to a record."""
    records, begun = [], ""
    for line in re.findall(r"[^\n]*\n|[^\n]+$", text):
        begun += line
        if begun.count('"') % 2 == 0:
            records.append(begun)
            begun = ""
    return [*records, begun] if begun else records


def _find_fault(line: str, previous: str, lines: Sequence[str]) -> str:
    body, _, stated = line[:-1].rpartition(",")
    if stated == _hash(previous, body):
        return ""
    chains = {_hash(_HEADER): 1, **{_chain_of(other): number for number, other in enumerate(lines[1:], start=2)}}
    follows = next((number for chain, number in chains.items() if stated == _hash(chain, body)), None)
    if follows is None:
        return "was altered, or a line before it is missing"
    return f"is not in its place: it was written after line {follows}"


def _find_settings_fault(path: Path, line: str) -> str:
    (cells,) = csv.reader([line])
    digest = dict(zip([*COLUMNS, *EVIDENCE], cells, strict=False)).get("settings")
    return "" if not digest or digest in _kept(path) else "names settings that were altered, or are missing beside it"


def _chain_of(line: str) -> str:
    return line[:-1].rpartition(",")[2]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _encode(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_escape(cell) for cell in cells])  # else it quotes no line break
    return text.getvalue().removesuffix("\r\n")


def _escape(cell: Any) -> str:
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _unescape(cell: str) -> str:
    return cell.removeprefix("'")


@contextmanager
def _open_private(path: Path) -> Iterator[BinaryIO]:
    """A file that its owner alone can read, and one process at a time append to."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
        try:
            from fcntl import LOCK_EX, flock  # not on Windows
        except ImportError:
            yield file
            return
        flock(file, LOCK_EX)
        yield file


def _find_head(path: Path, file: BinaryIO) -> str:
    """The last row's chain. A new file gets its header, and an unfinished line a row that says so."""
    length = file.seek(0, os.SEEK_END)
    if length == 0:
        file.write(f"{_HEADER}\n".encode())
        return _hash(_HEADER)
    if length > _MOST_ROWS_BYTES:
        raise ValueError(f"{path} has {length} bytes, and no run needs more: begin another one")
    file.seek(max(0, length - _CHAIN_LENGTH))
    found = _CHAIN.fullmatch(file.read())
    return found[1].decode() if found else _mend(path, file)


def _mend(path: Path, file: BinaryIO) -> str:
    """Take an unfinished last line out, note its hash in a row of its own, and give the chain."""
    file.seek(0)
    content = file.read()
    kept = content[: content.rfind(b"\n") + 1]
    rest = content[len(kept) :]
    if not kept and f"{_HEADER}\n".encode().startswith(content):
        file.truncate(0)
        file.write(f"{_HEADER}\n".encode())
        return _hash(_HEADER)
    if not kept.startswith(f"{_HEADER}\n".encode()):
        raise ValueError(f"{path} is no ledger with a chain: move it away, and the next row begins a new one")
    if not rest and kept.count(b"\n") == 1:
        return _hash(_HEADER)
    if not rest:
        raise ValueError(
            f"{path} was altered: its last line has no chain; see fedscgen ledger verify, and move it away"
        )
    file.truncate(len(kept))
    file.flush()
    previous = _find_head(path, file)
    note = {"kind": UNFINISHED, "bytes": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}
    body = _encode([note.get(name) for name in [*COLUMNS, *EVIDENCE[:-1]]])
    chain = _hash(previous, body)
    file.write(f"{body},{chain}\n".encode())
    return chain
