"""The way to the SuperNodes through Flower's SuperLink, as the coordinator sees it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from flwr.app import Message as FlowerMessage

from fedscgen._types import WireFormatError
from fedscgen.deployment import Failure
from fedscgen.flower._wire import unwrap, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flwr.serverapp import Grid

    from fedscgen._types import Buffer

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 5.0  # between two looks at who is connected
_TRIES = 5
_GRACE_SECONDS = 10.0  # for which Flower keeps a message longer than it is waited for, to tell late from lost


class GridCarrier:
    """Carries bytes to SuperNodes; see :class:`fedscgen.deployment.Carrier`.

    Parameters
    ----------
    grid
        Flower's way to the SuperNodes.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def online(self) -> set[str]:
        """SuperNodes that are connected."""
        return {_to_address(node) for node in self._find_nodes()}

    def exchange(self, letters: Mapping[str, Buffer], timeout: float) -> Iterator[tuple[str, Buffer | Failure]]:
        """Send bytes to SuperNodes, and give theirs as they come, until all have answered, gone, or run out of time."""
        deadline, online = time.monotonic() + timeout, self.online()
        for address in letters:
            if address not in online:
                yield address, Failure("not connected")
        pending = self._send({address: data for address, data in letters.items() if address in online}, timeout)
        looked = time.monotonic()
        while pending:
            for reply in self._pull(list(pending)):
                yield pending.pop(reply.metadata.reply_to_message_id), _read(reply)
            if time.monotonic() > deadline:
                return
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked, online = time.monotonic(), self.online()
                for identity in [identity for identity, address in pending.items() if address not in online]:
                    yield pending.pop(identity), Failure("disconnected before it answered")
            time.sleep(_POLL_SECONDS)

    def _find_nodes(self) -> list[int]:
        return _insist(lambda: list(self._grid.get_node_ids()))

    def _pull(self, identities: list[str]) -> list[FlowerMessage]:
        return _insist(lambda: list(self._grid.pull_messages(identities)))

    def _send(self, letters: Mapping[str, Buffer], timeout: float) -> dict[str, str]:
        """The address by the identity of the message that it was sent."""
        wrapped = {id(data): wrap(data) for data in letters.values()}
        ttl = max(0.0, timeout) + _GRACE_SECONDS

        def push() -> list[str]:
            messages = [
                FlowerMessage(wrapped[id(data)], _to_node(address), "query", ttl=ttl)
                for address, data in letters.items()
            ]
            return list(self._grid.push_messages(messages))

        return dict(zip(_insist(push), letters, strict=True)) if letters else {}


def _to_address(node: int) -> str:
    return f"node {node}"


def _to_node(address: str) -> int:
    return int(address.removeprefix("node "))


def _read(reply: FlowerMessage) -> Buffer | Failure:
    if reply.has_error():
        return Failure(f"Flower says: {reply.error.reason}")
    try:
        return unwrap(reply.content)
    except WireFormatError as error:
        return Failure(str(error))


def _insist(call: Callable[[], Answer]) -> Answer:
    """What a call to the SuperLink gives, in the end: one that is overloaded fails at times."""
    for attempt in range(1, _TRIES):
        try:
            return call()
        except Exception as error:  # noqa: BLE001  (Flower has no type for what may pass)
            logger.warning("the SuperLink failed, attempt %d of %d: %s", attempt, _TRIES, error)
            time.sleep(attempt * _LOOK_SECONDS)
    return call()
