"""FeatureCloud on loopback: clients that are processes of the real engine, and a controller that carries messages.

The controller speaks the protocol of FeatureCloud's own, which can't be had without Docker: it sets clients up, polls
their status, fetches one message a poll, and delivers it. ``disturb`` loses, delays or doubles messages.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ENGINE = "FeatureCloud==0.1.0"
_PROGRAM = """
import os, signal, sys
from pathlib import Path
import FeatureCloud.app.engine.app as engine
import torch
from fedscgen.featurecloud import _client
from fedscgen.featurecloud.app import main
engine.TERMINAL_WAIT, engine.TRANSITION_WAIT = 0.3, 0.05
torch.set_num_threads(1)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    given, output, log, port = line.rstrip("\\n").split("\\t")
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        said = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1), os.dup2(said, 2), os.close(0)
        main(Path(given), Path(output), int(port))
    print(process, flush=True)
"""


def install_engine(folder: Path) -> Path:
    """Install the engine and what it needs into a folder of its own, as the guide says: it would drag much back."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(  # noqa: S603
        [*command, "--target", str(folder), ENGINE, "bottle>=0.13,<0.14"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"needs {ENGINE} and bottle from a package index: {done.stderr.strip()[-300:]}")
    return folder


class Relayed(NamedTuple):
    """A message as the controller has seen it."""

    sender: str
    receivers: tuple[str, ...]
    memo: str
    data: bytes


class HttpLink:
    """A client behind a port."""

    def __init__(self, port: int) -> None:
        self._port = port

    def set_up(self, payload: dict[str, Any]) -> None:
        self._ask("POST", "/api/setup", json.dumps(payload).encode(), "application/json")

    def status(self) -> dict[str, Any]:
        """Its content type is wrong when a message waits, as at the real one: not looked at."""
        return json.loads(self._ask("GET", "/api/status"))

    def fetch(self) -> bytes:
        return self._ask("GET", "/api/data")

    def deliver(self, sender: str, memo: str, data: bytes) -> None:
        query = urllib.parse.urlencode({"client": sender, "memo": memo})
        self._ask("POST", f"/api/data?{query}", data, "application/octet-stream")

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status}, {content[:300]!r}")
        return content


class LocalLink:
    """An engine's app of this process."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def set_up(self, payload: dict[str, Any]) -> None:
        self._app.handle_setup(payload["id"], payload["coordinator"], payload["clients"], payload["coordinatorID"])

    def status(self) -> dict[str, Any]:
        status = self._app.handle_status()
        return status if isinstance(status, dict) else json.loads(status)

    def fetch(self) -> bytes:
        return self._app.handle_outgoing()

    def deliver(self, sender: str, memo: str, data: bytes) -> None:
        self._app.handle_incoming(data, sender, memo=memo)


class Controller:
    """Carries messages between clients, the first of which is the coordinator, until all have finished or are gone.

    ``disturb`` is told of each message, once for each receiver, and gives the seconds after which it is delivered: once
    by default, nothing for a message that is lost, several for one that comes more than once. It may end clients.
    """

    def __init__(self, links: dict[str, Any], interval: float = 0.02) -> None:
        self.links = links
        self.relayed: list[Relayed] = []
        self.said: dict[str, dict[str, Any]] = {}
        self.texts: dict[str, list[str]] = {client: [] for client in links}
        self.disturb: Callable[[Relayed], Iterable[float]] = lambda message: (0.0,)
        self.replace: Callable[[Relayed], bytes] = lambda message: message.data
        self._interval = interval
        self._waiting: list[tuple[float, str, Relayed]] = []

    def run(self, timeout: float) -> None:
        clients = list(self.links)
        for client in clients:
            self.links[client].set_up(
                {"id": client, "coordinator": client == clients[0], "clients": clients, "coordinatorID": clients[0]}
            )
        going, deadline = set(clients), time.monotonic() + timeout
        while going:
            assert time.monotonic() < deadline, f"it goes on after {timeout} s: {self.said}"
            for client in clients:
                if client in going and not self._serve(client):
                    going.remove(client)
            self._deliver()
            time.sleep(self._interval)

    def _serve(self, client: str) -> bool:
        """One poll, and the message that it tells of; whether the client goes on."""
        try:
            status = self.links[client].status()
            self.said[client] = status
            if status["message"] not in self.texts[client][-1:]:
                self.texts[client].append(status["message"])
            if status["available"]:
                self._route(client, status, self.links[client].fetch())
        except OSError:
            self.said[client] = {"message": "gone"}
            return False
        return not status["finished"]

    def _route(self, sender: str, status: dict[str, Any], data: bytes) -> None:
        assert status["smpc"] is None
        assert status["dp"] is None
        coordinator = next(iter(self.links))
        if status["destination"]:
            receivers = [status["destination"]]
        else:
            others = [client for client in self.links if client != sender]
            receivers = others if sender == coordinator else [coordinator]
        message = Relayed(sender, tuple(receivers), status["memo"], data)
        self.relayed.append(message)
        for receiver in receivers:
            copy = message._replace(receivers=(receiver,))
            for after in self.disturb(copy):
                self._waiting.append((time.monotonic() + after, receiver, copy))

    def _deliver(self) -> None:
        now = time.monotonic()
        due, self._waiting = (
            [entry for entry in self._waiting if entry[0] <= now],
            [entry for entry in self._waiting if entry[0] > now],
        )
        for _, receiver, message in due:
            try:
                self.links[receiver].deliver(message.sender, message.memo, self.replace(message))
            except OSError:
                self.said[receiver] = {"message": "gone"}


class Starter:
    """A process that has imported all of the app, which takes seconds, and forks for every client."""

    def __init__(self, engine: Path) -> None:
        path = os.pathsep.join(entry for entry in (os.environ.get("PYTHONPATH", ""), str(engine)) if entry)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._read() == "ready"

    def start(self, given: Path, output: Path, log: Path, port: int) -> int:
        """The number of a client's process."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, (given, output, log, port))) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def stop(self) -> None:
        self._process.communicate(timeout=30)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Clients:
    """Processes of the engine, one a client; none is left behind."""

    def __init__(self, starter: Starter, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._starter = starter
        self._names = names
        self._processes: dict[str, int] = {}
        for name in names:
            self.given(name).mkdir(parents=True)

    def given(self, client: str) -> Path:
        return self.folder / client / "input"

    def output(self, client: str) -> Path:
        return self.folder / client / "output"

    def log(self, client: str) -> str:
        return (self.folder / client / "log").read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for client in list(self._processes):
            self.kill(client)

    def start(self) -> Controller:
        """A controller for all clients, once they answer."""
        controller = Controller({client: HttpLink(self._start(client)) for client in self._names})
        for client, link in controller.links.items():
            self._wait(client, link)
        return controller

    def kill(self, client: str) -> None:
        process = self._processes.pop(client, None)
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _start(self, client: str) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.output(client).mkdir()
        log = self.folder / client / "log"
        self._processes[client] = self._starter.start(self.given(client), self.output(client), log, port)
        return port

    def _wait(self, client: str, link: HttpLink) -> None:
        for _ in range(300):
            try:
                link.status()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise TimeoutError(self.log(client))
