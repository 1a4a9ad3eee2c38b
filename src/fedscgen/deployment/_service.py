"""A site's program as a service: it alone reads the cells, and answers what reaches its socket."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import stat
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, NamedTuple

from fedscgen._files import lock_folder
from fedscgen._local_socket import FrameError, receive_frame, send_frame
from fedscgen._types import make_refusal
from fedscgen.deployment._runs import SiteRuns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from fedscgen._types import Buffer
    from fedscgen.deployment._config import SiteConfig

logger = logging.getLogger(__name__)

_MOST_CONNECTIONS = 8
_FRAME_SECONDS = 60.0  # for a message to come, and for an answer to go
_LOOK_SECONDS = 1.0
_LONGEST_PATH = 107  # the kernel's bound for a socket
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class _Question(NamedTuple):
    run: int
    data: Buffer
    answer: Future[Buffer]


def serve(config: SiteConfig) -> None:
    """Listen at the site's socket and answer, until the process gets SIGTERM or SIGINT.

    All that it writes is for its own user alone, who should be another than the one who runs the SuperNode. Messages
    are answered one after the other. A round that is cut off is lost; everything else goes on with the next start.

    Parameters
    ----------
    config
        What the site has decided.

    Raises
    ------
    BlockingIOError
        Another service of this site is running.
    FileExistsError
        There is something else in the socket's place.
    FileNotFoundError
        The data, or the folder for the socket, do not exist.
    ValueError
        The socket's path is too long, or there is no such group.
    PermissionError
        The socket can't be handed to the group.
    """
    os.umask(0o077)
    _check_data(config.data)
    _make_private(config.output)
    questions: Queue[_Question] = Queue()
    path = config.find_socket()
    with lock_folder(config.output), _listen(path, config.socket_group) as listener, _stop_by_signal() as stopped:
        threading.Thread(target=_accept, args=(listener, questions), daemon=True).start()
        logger.info("site %r listens at %s, with its results in %s", config.site, path, config.output)
        runs = SiteRuns(config)
        try:
            while not stopped.is_set():
                _answer_next(runs, questions)
        finally:
            logger.info("site %r stops", config.site)


def _answer_next(runs: SiteRuns, questions: Queue[_Question]) -> None:
    """In the main thread, which alone signals reach: so a training can be stopped, too."""
    try:
        question = questions.get(timeout=_LOOK_SECONDS)
    except Empty:
        runs.put_away_silent()
    else:
        question.answer.set_result(runs.answer(question.run, question.data))


@contextmanager
def _stop_by_signal() -> Iterator[threading.Event]:
    """Whether one has come; it also cuts off what the main thread does, unless that swallows exceptions."""
    stopped = threading.Event()

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        sys.exit(0)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_data(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & _OTHERS:
        logger.warning("data=%s can be read by others (mode %o): chmod 600 it", path, stat.S_IMODE(mode))


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


@contextmanager
def _listen(path: Path, group: str) -> Iterator[socket.socket]:
    """A socket that the user and a group may connect to; it is gone afterwards."""
    _clear_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            if group:
                _hand_to(path, group)
            path.chmod(0o660)
            listener.listen(_MOST_CONNECTIONS)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _clear_way(path: Path) -> None:
    """Remove a socket that a service which was killed has left, and nothing else."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"socket={path}: longer than {_LONGEST_PATH} bytes: choose a shorter path")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"socket={path}: make the folder {path.parent}, which the SuperNode's user can enter")
    if not path.exists():
        return
    if not path.is_socket():
        raise FileExistsError(f"socket={path} is something else: choose another place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial, suppress(ConnectionRefusedError):
        trial.connect(str(path))
        raise FileExistsError(f"socket={path}: another service listens there: stop it, or choose another place")
    path.unlink()


def _hand_to(path: Path, group: str) -> None:
    import grp  # not on Windows

    try:
        shutil.chown(path, group=int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
    except KeyError:
        raise ValueError(f"socket-group={group!r}: there is no such group: groupadd {group}") from None
    except PermissionError:
        message = f"socket-group={group!r}: this service's user is not in it: usermod -aG {group} USER"
        raise PermissionError(message) from None


def _accept(listener: socket.socket, questions: Queue[_Question]) -> None:
    places = threading.Semaphore(_MOST_CONNECTIONS)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # the service stops
        if places.acquire(blocking=False):
            threading.Thread(target=_converse, args=(connection, questions, places), daemon=True).start()
        else:
            logger.warning("refused: more than %d connections at a time", _MOST_CONNECTIONS)
            with connection:
                _refuse(connection, "the site is busy")


def _converse(connection: socket.socket, questions: Queue[_Question], places: threading.Semaphore) -> None:
    """Take one message, have it answered, and send the answer."""
    with connection:
        try:
            run, data = receive_frame(connection, seconds=_FRAME_SECONDS)
            question = _Question(run, data, Future())
            questions.put(question)
            answer = question.answer.result()
            connection.settimeout(_FRAME_SECONDS)
            send_frame(connection, run, answer)
        except FrameError as error:
            logger.warning("refused: %s", error)
            _refuse(connection, str(error))
        except OSError as error:
            logger.warning("a connection was given up: %s", error)
        finally:
            places.release()


def _refuse(connection: socket.socket, reason: str) -> None:
    with suppress(OSError):
        connection.settimeout(1.0)
        send_frame(connection, 0, make_refusal(reason).to_buffer())
