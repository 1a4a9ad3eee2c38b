"""Messages over a socket of this computer: whose run it is, how long the message is, and its bytes.

Imports nothing that takes time, as Flower starts a process for every message.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 2**30
"""Longest message that either end takes."""

_MARK = b"FSL1"
_HEAD = struct.Struct("<4sQQ")  # mark, run, length
_PIECE = 2**20


class FrameError(ConnectionError):
    """What came over the socket is no message, too long a one, or not a whole one."""


def ask(path: Path, run: int, data: bytes | bytearray | memoryview, *, timeout: float) -> bytearray:
    """Hand a message to the service that listens at a socket, and wait for its answer.

    Parameters
    ----------
    path
        The socket.
    run
        Number of the run, from 0 to 2**64 - 1.
    data
        A message in the wire format.
    timeout
        Seconds for all of it.

    Raises
    ------
    OSError
        Nobody listens there, this user may not connect, or no answer came in time.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        with suppress(BrokenPipeError):  # whoever refuses doesn't read to the end, and its answer says why
            send_frame(connection, run, data)
        return receive_frame(connection, seconds=deadline - time.monotonic())[1]


def send_frame(connection: socket.socket, run: int, data: bytes | bytearray | memoryview) -> None:
    """Send a message of a run."""
    connection.sendall(_HEAD.pack(_MARK, run, len(data)))
    connection.sendall(data)


def receive_frame(connection: socket.socket, *, seconds: float, most: int = MOST_BYTES) -> tuple[int, bytearray]:
    """The run and the message that come next.

    Memory is taken as bytes come, not as they are announced.

    Parameters
    ----------
    connection
        Where they come.
    seconds
        Time for the whole message, however slowly it comes.
    most
        Longest message.

    Raises
    ------
    FrameError
        Something else comes, too much, or too little.
    TimeoutError
        It takes longer.
    """
    deadline = time.monotonic() + seconds
    mark, run, length = _HEAD.unpack(_receive(connection, _HEAD.size, deadline))
    if mark != _MARK:
        raise FrameError("not a message of fedscgen: it does not begin with the mark")
    if length > most:
        raise FrameError(f"a message of {length} bytes: at most {most} are taken")
    return run, _receive(connection, length, deadline)


def _receive(connection: socket.socket, length: int, deadline: float) -> bytearray:
    received = bytearray()
    while len(received) < length:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(min(length - len(received), _PIECE))
        if not piece:
            raise FrameError(f"the connection ended after {len(received)} of {length} bytes")
        received += piece
    return received
