"""One file over HTTP, resumed where it broke off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two pieces of an answer."""

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5  # before the second attempt, and doubled before each further one
_PIECE_BYTES = 1 << 16  # the most that is lost when a connection breaks
_PERMANENT = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


class TransferError(Exception):
    """An attempt failed in a way that the next one may not."""


@dataclass(frozen=True)
class Partial:
    """The part of a file that has arrived, and the version of the file that it belongs to."""

    path: Path

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> str | None:
        """The entity tag that the server gave, if it identifies the bytes (a weak one, ``W/``, doesn't)."""
        return self._version_path.read_text() if self._version_path.exists() else None

    @property
    def _version_path(self) -> Path:
        return self.path.with_name(self.path.name + ".etag")

    def start(self, version: str | None) -> None:
        """Begin at the first byte of this version."""
        self.discard()
        self.path.touch()
        if version and not version.startswith("W/"):
            self._version_path.write_text(version)

    def finish(self, target: Path) -> None:
        """Become the complete file."""
        self.path.replace(target)
        self._version_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Transfer:
    """Fetches one file from a server into a partial file.

    Parameters
    ----------
    session
        The connection to ask by.
    url
        Address of the file.
    partial
        What has arrived already, and where the rest goes.
    size
        Bytes of the whole file, if known.
    checked
        Whether a checksum will tell if the whole is right. Only then, or with an entity tag, is a file resumed: nothing
        else would show that its parts belong together.
    on_progress
        Called with the bytes there are and, if known, those of the whole file.
    """

    session: requests.Session
    url: str
    partial: Partial
    size: int | None
    checked: bool
    on_progress: Callable[[int, int | None], None]

    def run(self) -> None:
        """Bring the partial file to its full length.

        Raises
        ------
        FileNotFoundError
            The server says that it doesn't serve the file.
        TransferError
            All attempts failed; the message is the reason of the last.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            if self.size is not None and self.partial.size >= self.size:
                return  # as long as it should be: a check of the whole will judge it
            try:
                self._attempt()
                return
            except TransferError as error:
                logger.info("attempt %d of %d to fetch %s: %s", attempt, _ATTEMPTS, self.url, error)
                if attempt == _ATTEMPTS:
                    raise TransferError(f"{error}, in the last of {_ATTEMPTS} attempts") from error
            time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))

    def _attempt(self) -> None:
        import requests

        try:
            with self.session.get(self.url, headers=self._headers(), stream=True, timeout=TIMEOUT_SECONDS) as answer:
                total = self._begin(answer)
                with self.partial.path.open("ab") as file:
                    for piece in answer.iter_content(_PIECE_BYTES):
                        file.write(piece)
                        self.on_progress(file.tell(), total)
        except requests.RequestException as error:
            raise TransferError(reason(error)) from error
        if total is not None and self.partial.size < total:
            raise TransferError(f"the connection ended after {self.partial.size:,} of {total:,} bytes")

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        version = self.partial.version
        if self.partial.size and (version or self.checked):
            headers["Range"] = f"bytes={self.partial.size}-"
            if version:
                headers["If-Range"] = version
        return headers

    def _begin(self, answer: requests.Response) -> int | None:
        """Keep what has arrived only if the answer continues it; return the size of the whole file, if stated."""
        status = answer.status_code
        if status in _PERMANENT:
            raise FileNotFoundError(f"{self.url}: {status} {answer.reason}")
        if status == HTTPStatus.OK:  # from the first byte on, whatever was asked for
            self.partial.start(answer.headers.get("ETag"))
            total = _number(answer.headers.get("Content-Length", ""))
            return self.size if total is None else total
        if status == HTTPStatus.PARTIAL_CONTENT:
            offset, total = _content_range(answer.headers.get("Content-Range", ""))
            if offset == self.partial.size:
                return total
        if status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            self.partial.discard()  # it doesn't belong to the file that is served now
        raise TransferError(f"the server answered {status} {answer.reason}")


def reason(error: BaseException) -> str:
    """The text of the error that led to all others."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


def _content_range(header: str) -> tuple[int | None, int | None]:
    """Offset and total of ``bytes 100-199/200``; ``None`` for what isn't stated."""
    positions, _, total = header.removeprefix("bytes ").partition("/")
    return _number(positions.partition("-")[0]), _number(total)


def _number(digits: str) -> int | None:
    return int(digits) if digits.isdecimal() else None
