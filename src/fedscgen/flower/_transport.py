"""The way to the sites through Flower's SuperLink, as the coordinator sees it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from flwr.app import Message as FlowerMessage

from fedscgen._types import Message, WireFormatError
from fedscgen.federation import SiteError
from fedscgen.federation._protocol import SERVER
from fedscgen.flower._wire import INTRODUCTION, REFUSAL, unwrap, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flwr.serverapp import Grid

    from fedscgen._types import Buffer
    from fedscgen.federation import PrivacyLedger

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 5.0  # between two looks at who is connected
_TRIES = 5
_GRACE_SECONDS = 10.0  # for which Flower keeps a message longer than it is waited for, to tell late from lost


class FlowerTransport:
    """Carries messages to sites by name; see :class:`fedscgen.federation.Transport`.

    A site that refuses, is disconnected or takes longer than the timeout is left out, and the log says why.

    Parameters
    ----------
    grid
        Flower's way to the SuperNodes.
    answer_timeout
        Seconds that a site has for one answer.
    ledger
        Where every message that reaches or leaves the coordinator is entered.

    Attributes
    ----------
    reasons
        Why each site that has been left out was so, last.
    """

    def __init__(self, grid: Grid, answer_timeout: float, ledger: PrivacyLedger) -> None:
        self.reasons: dict[str, str] = {}
        self._grid = grid
        self._ledger = ledger
        self._timeout = answer_timeout
        self._nodes: dict[str, int] = {}

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites that have joined, sorted."""
        return sorted(self._nodes)

    def gather(self, proposal: Mapping[str, object], *, n_sites: int, min_sites: int, timeout: float) -> None:
        """Tell everyone who connects what is planned, until enough sites have agreed or the time is over.

        Raises
        ------
        SiteError
            Fewer than ``min_sites`` have agreed.
        """
        introduction = Message(INTRODUCTION, proposal)
        data = introduction.to_buffer()
        deadline = time.monotonic() + timeout
        asked: set[int] = set()
        while len(self._nodes) < n_sites and time.monotonic() < deadline:
            online = self._online()
            asked &= online  # whoever comes back may have changed its mind
            newcomers = online - asked - set(self._nodes.values())
            asked |= newcomers
            names = {node: f"node {node}" for node in newcomers}
            for name in names.values():
                self._ledger.record(SERVER, name, introduction, len(data))
            for node, answer in self._exchange(dict.fromkeys(newcomers, data), names, deadline):
                self._admit(node, answer)
            time.sleep(_POLL_SECONDS)
        if len(self._nodes) < min_sites:
            raise SiteError(
                f"{len(self._nodes)} of {n_sites} sites have joined within {timeout:g} s ({self._joined()}), "
                f"and min-sites={min_sites}"
            )
        if len(self._nodes) < n_sites:
            logger.warning("begins with %d of %d sites: %s", len(self._nodes), n_sites, self._joined())

    def ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Send each site its message, and give the answers as they come."""
        encoded = {id(message): message.to_buffer() for message in messages.values()}
        for site, message in messages.items():
            self._ledger.record(SERVER, site, message, len(encoded[id(message)]))
        names = {self._nodes[site]: site for site in messages}
        letters = {self._nodes[site]: encoded[id(message)] for site, message in messages.items()}
        for node, data in self._exchange(letters, names, time.monotonic() + self._timeout):
            answer = self._read(names[node], data)
            if answer is not None:
                self._ledger.record(names[node], SERVER, answer, len(data))
                yield names[node], answer

    def told_reasons(self) -> str:
        """Why sites were left out, as the end of a sentence."""
        return "".join(f"; {site}: {reason}" for site, reason in self.reasons.items())

    def _joined(self) -> str:
        return ", ".join(self.sites) or "none"

    def _admit(self, node: int, data: bytes) -> None:
        answer = self._read(f"node {node}", data)
        if answer is None:
            return
        site = str(answer.meta["site"])
        if site in self._nodes:
            self._leave_out(f"node {node}", f"calls itself {site!r}, as another does: give each site a name of its own")
            return
        logger.info("site %r has joined as node %d", site, node)
        self._ledger.record(site, SERVER, answer, len(data))
        self._nodes[site] = node

    def _read(self, name: str, data: bytes) -> Message | None:
        """The answer, unless it is a refusal or none at all."""
        try:
            answer = Message.from_bytes(data)
        except WireFormatError as error:
            self._leave_out(name, f"answered with {error}")
            return None
        if answer.kind == REFUSAL:
            self._ledger.record(name, SERVER, answer, len(data))
            self._leave_out(name, str(answer.meta.get("reason")))
            return None
        return answer

    def _leave_out(self, name: str, reason: str) -> None:
        self.reasons[name] = reason
        logger.warning("%s is left out: %s", name, reason)

    def _exchange(
        self, letters: Mapping[int, Buffer], names: Mapping[int, str], deadline: float
    ) -> Iterator[tuple[int, bytes]]:
        """Send bytes to nodes, and give theirs as they come, until all have answered, gone, or run out of time."""
        pending = self._send(letters, names, deadline)
        looked = time.monotonic()
        while pending:
            for reply in self._pull(list(pending)):
                node = pending.pop(reply.metadata.reply_to_message_id)
                data = self._content(names[node], reply)
                if data is not None:
                    yield node, data
            if time.monotonic() > deadline:
                for node in pending.values():
                    self._leave_out(names[node], "no answer in time")
                return
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                pending = self._still_connected(pending, names)
            time.sleep(_POLL_SECONDS)

    def _online(self) -> set[int]:
        return _insist(lambda: set(self._grid.get_node_ids()))

    def _pull(self, identities: list[str]) -> list[FlowerMessage]:
        return _insist(lambda: list(self._grid.pull_messages(identities)))

    def _content(self, name: str, reply: FlowerMessage) -> bytes | None:
        if reply.has_error():
            self._leave_out(name, f"Flower says: {reply.error.reason}")
            return None
        try:
            return unwrap(reply.content)
        except WireFormatError as error:
            self._leave_out(name, str(error))
            return None

    def _send(self, letters: Mapping[int, Buffer], names: Mapping[int, str], deadline: float) -> dict[str, int]:
        """Send to those who are connected; the message's id by node."""
        online = self._online()
        for node in letters:
            if node not in online:
                self._leave_out(names[node], "not connected")
        wrapped = {id(data): wrap(data) for data in letters.values()}
        ttl = max(0.0, deadline - time.monotonic()) + _GRACE_SECONDS
        nodes = [node for node in letters if node in online]

        def push() -> list[str]:
            messages = [FlowerMessage(wrapped[id(letters[node])], node, "query", ttl=ttl) for node in nodes]
            return list(self._grid.push_messages(messages))

        sent = _insist(push) if nodes else []
        return dict(zip(sent, nodes, strict=True))

    def _still_connected(self, pending: Mapping[str, int], names: Mapping[int, str]) -> dict[str, int]:
        online = self._online()
        for node in pending.values():
            if node not in online:
                self._leave_out(names[node], "disconnected before it answered")
        return {identity: node for identity, node in pending.items() if node in online}


def _insist(call: Callable[[], Answer]) -> Answer:
    """What a call to the SuperLink gives, in the end: one that is overloaded fails at times."""
    for attempt in range(1, _TRIES):
        try:
            return call()
        except Exception as error:  # noqa: BLE001  (Flower has no type for what may pass)
            logger.warning("the SuperLink failed, attempt %d of %d: %s", attempt, _TRIES, error)
            time.sleep(attempt * _LOOK_SECONDS)
    return call()
