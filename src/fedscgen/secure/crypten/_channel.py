"""Messages between the coordinator and a process it started: length-prefixed frames on a socket, never pickle."""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from fedscgen._processes import end_after
from fedscgen._types import Message, WireFormatError
from fedscgen.secure._aggregator import AggregationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

REFUSED, FAILED = "refused", "failed"
"""Kinds of an answer that is none: the process goes on after the first, and ends after the second."""

_LENGTH = struct.Struct("<Q")
_MAX_LENGTH = 2**36
_POLL_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Channel:
    """One end of a socket on which messages go both ways.

    Parameters
    ----------
    connection
        A connected stream socket, which the channel takes over.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """File descriptor, for ``select``."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close this end; the other end reads end of file."""
        self._connection.close()

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Send a message.

        Raises
        ------
        OSError
            The other end is gone, or (TimeoutError) doesn't take it within ``timeout`` seconds.
        """
        frame = message.to_buffer()
        self._connection.settimeout(timeout)
        self._connection.sendall(_LENGTH.pack(len(frame)))
        self._connection.sendall(frame)

    def receive(self, timeout: float | None = None) -> Message:
        """Wait for a message.

        Raises
        ------
        OSError
            The other end is gone (ConnectionError), or sends nothing within ``timeout`` seconds (TimeoutError).
        WireFormatError
            What came is not a message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > _MAX_LENGTH:
            raise WireFormatError(f"a frame of {length} bytes is announced: {_MAX_LENGTH} is the most")
        return Message.from_bytes(self._read(length, deadline))

    def _read(self, length: int, deadline: float | None) -> bytearray:
        buffer = bytearray(length)
        rest = memoryview(buffer)
        while rest:
            self._connection.settimeout(None if deadline is None else max(1e-3, deadline - time.monotonic()))
            n_bytes = self._connection.recv_into(rest)
            if n_bytes == 0:
                raise ConnectionResetError("the other end has closed the connection")
            rest = rest[n_bytes:]
        return buffer


def serve(channel: Channel, prepare: Callable[[], tuple[Message, Callable[[Message], Message]]]) -> NoReturn:
    """Answer the coordinator's messages one by one until it is gone, and end this process with it.

    Parameters
    ----------
    channel
        To the coordinator.
    prepare
        Gives the first message to send, and the function that answers each further one. An
        :class:`~fedscgen.secure.AggregationError` of that function is answered as a refusal; any other error ends the
        process.
    """
    inbox: queue.Queue[Message] = queue.Queue(maxsize=1)
    coordinator = os.getppid()
    end_after(lambda: _read_until_the_end(channel, inbox, coordinator))
    ready, handle = prepare()
    channel.send(ready)
    while True:
        message = inbox.get()
        try:
            reply = handle(message)
        except AggregationError as refusal:
            reply = Message(REFUSED, {"error": str(refusal)})
        except Exception as error:
            logger.exception("message %r", message.kind)
            channel.send(Message(FAILED, {"error": f"{type(error).__name__}: {error}"}))
            raise
        channel.send(reply)


def _read_until_the_end(channel: Channel, inbox: queue.Queue[Message], coordinator: int) -> None:
    """Read messages until the coordinator is gone, even while the main thread computes."""
    # a fork of the coordinator that outlives it would keep the socket open: its pid is watched as well
    while os.getppid() == coordinator:
        try:
            if select.select([channel], [], [], _POLL_SECONDS)[0]:
                inbox.put(channel.receive())
        except (OSError, WireFormatError):
            return
