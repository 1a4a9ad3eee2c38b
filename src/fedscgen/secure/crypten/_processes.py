"""The compute parties and their dealer as child processes: started together, and ended together."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fedscgen._types import WireFormatError
from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure.crypten._channel import FAILED, REFUSED, Channel
from fedscgen.secure.crypten._compat import provide_crypten
from fedscgen.secure.crypten._dealer import DEALER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen._types import Message

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",  # else crypten takes a GPU context in every party
    "PYTHONWARNINGS": "ignore",  # a coordinator that makes warnings errors could not import crypten
}
_SECONDS_TO_EXIT, _SECONDS_TO_DIE = 0.5, 5.0


@dataclass(frozen=True)
class _Worker:
    name: str
    process: subprocess.Popen[bytes]
    channel: Channel
    log: IO[bytes]


class Processes:
    """Starts the processes; every wait for one of them ends after ``timeout`` seconds.

    They end with :meth:`stop`, with the interpreter, and with the death of this process, however it dies.

    Raises
    ------
    AggregationError
        A process could not be started, or wasn't ready in time.
    """

    def __init__(self, n_parties: int, *, timeout: float) -> None:
        self.parties = tuple(f"party {rank}" for rank in range(n_parties))
        self._timeout = timeout
        self._workers: dict[str, _Worker] = {}
        self._end = weakref.finalize(self, _end_all, self._workers)
        try:
            # for the parties to find each other, and perhaps to import from: of no use once they are ready
            with tempfile.TemporaryDirectory(prefix="fedscgen-") as directory:
                self._start(Path(directory))
                ready = self._collect([*self.parties, DEALER], "ready")
        except BaseException:
            self.stop()
            raise
        self.identities = {name: bytes.fromhex(answer.meta["identity"]) for name, answer in ready.items()}

    @property
    def are_alive(self) -> bool:
        """Whether they haven't been stopped."""
        return self._end.alive

    def ask(self, messages: Mapping[str, Message], expected: str) -> dict[str, Message]:
        """Send each process a message, and wait for the answers of all.

        Raises
        ------
        AggregationError
            A process refused, and waits for the next message; or one ended or hangs, and all have been stopped.
        """
        for name, message in messages.items():
            try:
                self._workers[name].channel.send(message, self._timeout)
            except OSError:
                raise self._failure([name], message.kind) from None
        return self._collect(list(messages), expected)

    def stop(self) -> None:
        """Kill the processes, which keep nothing."""
        self._end()

    def _start(self, directory: Path) -> None:
        crypten = provide_crypten(directory / "crypten")
        options = [f"--n-parties={len(self.parties)}", f"--rendezvous={directory / 'rendezvous'}"]
        options += [f"--crypten={crypten}"] if crypten else []
        for rank, party in enumerate(self.parties):
            self._workers[party] = _launch(party, "_party", [f"--rank={rank}", *options])
        self._workers[DEALER] = _launch(DEALER, "_dealer", [])

    def _collect(self, names: Sequence[str], expected: str) -> dict[str, Message]:
        deadline = time.monotonic() + self._timeout
        answers: dict[str, Message] = {}
        with selectors.DefaultSelector() as selector:
            for worker in self._workers.values():  # those as well that owe no answer: their end is seen at once
                selector.register(worker.channel, selectors.EVENT_READ, worker.name)
            while silent := [name for name in names if name not in answers]:
                events = selector.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    raise self._failure(silent, expected)
                for key, _ in events:
                    answers[key.data] = self._receive(key.data, expected, deadline)
        for name, answer in answers.items():
            if answer.kind == REFUSED:
                raise AggregationError(f"{name}: {answer.meta['error']}; nothing was opened")
        return answers

    def _receive(self, name: str, expected: str, deadline: float) -> Message:
        try:
            message = self._workers[name].channel.receive(max(1e-3, deadline - time.monotonic()))
        except (OSError, WireFormatError):
            raise self._failure([name], expected) from None
        if message.kind == FAILED:
            raise self._failure([name], expected)
        if message.kind not in (expected, REFUSED):
            raise self._failure([name], f"{expected}, where it answered {message.kind}")
        return message

    def _failure(self, suspects: Sequence[str], stage: str) -> AggregationError:
        """Stop everything, and return an error that says what happened.

        Of several processes that ended, it names the one that was killed.
        """
        ended = self._exit_codes(suspects)
        if ended:
            culprit = min(ended, key=lambda name: (ended[name] >= 0, name not in suspects))
            what = f"{culprit} ended with exit status {ended[culprit]}{_last_words(self._workers[culprit])}"
        else:
            what = f"{', '.join(suspects)} did not answer within {self._timeout:g} seconds"
        self.stop()
        return AggregationError(
            f"{what}, at stage {stage!r}: nothing was opened and the compute parties were stopped; "
            "enter the aggregator again to start new ones"
        )

    def _exit_codes(self, suspects: Sequence[str]) -> dict[str, int]:
        """Exit codes of the processes that have ended; the suspects get a moment to do so."""
        deadline = time.monotonic() + _SECONDS_TO_EXIT
        while time.monotonic() < deadline and all(self._workers[name].process.poll() is None for name in suspects):
            time.sleep(0.01)
        codes = {worker.name: worker.process.poll() for worker in self._workers.values()}
        return {name: code for name, code in codes.items() if code is not None}


def _launch(name: str, module: str, options: Sequence[str]) -> _Worker:
    ours, theirs = socket.socketpair()
    log = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the process)
    with closing(theirs):
        # -P: a module in the current directory must not take the place of an installed one
        command = [sys.executable, "-P", "-m", f"{__package__}.{module}", f"--socket={theirs.fileno()}", *options]
        process = subprocess.Popen(  # noqa: S603  (our own modules, no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # an interrupt at the keyboard is the coordinator's to handle
        )
    return _Worker(name, process, Channel(ours), log)


def _last_words(worker: _Worker) -> str:
    """The last line that a process wrote, in brackets."""
    worker.log.seek(0)
    lines = worker.log.read().decode(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()[:200]})" if lines else ""


def _end_all(workers: Mapping[str, _Worker]) -> None:
    for worker in workers.values():
        worker.process.kill()
        worker.channel.close()
    for worker in workers.values():
        worker.process.wait(_SECONDS_TO_DIE)
        worker.log.close()
