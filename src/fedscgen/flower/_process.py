"""The site's own process, which outlives the process that Flower starts for every message.

It holds the cells, the model and the keys of the sum in progress. Flower's processes hand it messages over a local
socket that only the user can open, as bytes; nothing is ever unpickled. They start within a second, because this module
imports no federation before it serves one.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client as connect
from multiprocessing.connection import Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedscgen._files import write_whole
from fedscgen._options import read_options
from fedscgen._processes import end_with

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from fedscgen._types import Buffer

_ADDRESS = ".process.json"
_START_SECONDS = 120.0


class SiteProcessError(RuntimeError):
    """The site's process did not start, or ended without an answer."""


def ask_site(config: Mapping[str, Any], folder: Path, data: Buffer, *, watched: int, timeout: float) -> bytes:
    """Hand a message to the site's process, which is started if there is none.

    Parameters
    ----------
    config
        What the site has decided, as :class:`fedscgen.deployment.SiteConfig` is read.
    folder
        Where the run's results go, and by which its process is found.
    data
        The message, in the wire format.
    watched
        Identity of a process with which the site's process ends.
    timeout
        Seconds to wait for the answer.

    Raises
    ------
    SiteProcessError
        There is no answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answer: Future[bytes] = Future()

    def exchange() -> None:
        try:
            with _connect(config, folder, watched) as connection:
                connection.send_bytes(data)
                answer.set_result(connection.recv_bytes())
        except Exception as error:  # noqa: BLE001  (raised again by the thread that waits)
            answer.set_exception(error)

    # in a thread, as neither a busy process' socket nor what is read from it can be given a time limit
    threading.Thread(target=exchange, daemon=True).start()
    try:
        return answer.result(timeout)
    except TimeoutError:
        raise SiteProcessError(f"the site's process has not answered within {timeout:g} s") from None
    except (EOFError, OSError) as error:
        raise SiteProcessError("the site's process ended without an answer; site.log may say why") from error


def _connect(config: Mapping[str, Any], folder: Path, watched: int) -> Connection:
    connection = _try_to_connect(folder)
    if connection is not None:
        return connection
    (folder / _ADDRESS).unlink(missing_ok=True)
    process = _start(config, folder, watched)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = _try_to_connect(folder)
        if connection is not None:
            return connection
        time.sleep(0.1)
    process.kill()
    log = folder / "site.log"
    raise SiteProcessError(f"the site's process did not start: {_read_last_line(log)} (all of it is in {log})")


def _read_last_line(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def _try_to_connect(folder: Path) -> Connection | None:
    try:
        found = json.loads((folder / _ADDRESS).read_text(encoding="utf-8"))
        return connect(found["address"], authkey=bytes.fromhex(found["key"]))
    except OSError:
        return None


def _start(config: Mapping[str, Any], folder: Path, watched: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fedscgen.flower._process", str(folder), str(watched)]
    with (folder / "site.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    with process.stdin as settings:  # type: ignore[union-attr]
        settings.write(json.dumps(dict(config)).encode())
    return process


def main(folder: Path, watched: int) -> None:
    """Serve one run: what ``python -m fedscgen.flower._process`` does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    given = json.loads(sys.stdin.read())
    end_with(watched)
    from fedscgen.deployment import Site, SiteConfig  # takes seconds, during which it is watched already

    config = read_options(SiteConfig, given, "--node-config")
    site = Site(config, folder)
    last_heard = [time.monotonic()]
    end_with(watched, also_if=lambda: time.monotonic() - last_heard[0] > config.idle_timeout)
    key = secrets.token_bytes(32)
    with Listener(None, family="AF_UNIX" if os.name == "posix" else None, authkey=key) as listener:
        _announce(folder, {"address": listener.address, "key": key.hex()})
        try:
            while not site.finished:
                last_heard[0] = time.monotonic()
                with suppress(AuthenticationError, EOFError, OSError), listener.accept() as connection:
                    data = connection.recv_bytes()
                    last_heard[0] = float("inf")  # however long the answer takes
                    connection.send_bytes(site.answer(data))
        finally:
            (folder / _ADDRESS).unlink(missing_ok=True)


def _announce(folder: Path, content: dict[str, str]) -> None:
    """Say where the process can be reached, to nobody but the user."""
    previous = os.umask(0o077)
    try:
        write_whole(folder / _ADDRESS, json.dumps(content).encode())
    finally:
        os.umask(previous)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
