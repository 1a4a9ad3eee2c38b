"""The way from the coordinator to the other clients, through FeatureCloud's controllers; its own site is beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fedscgen.deployment import Failure
from fedscgen.featurecloud._frame import FrameError, read_frame
from fedscgen.featurecloud._memos import answer_memo, question_memo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from FeatureCloud.app.engine.app import AppState

    from fedscgen._types import Buffer
    from fedscgen.featurecloud._mailbox import Letter, Mailbox

_GRACE_SECONDS = 60.0  # for whoever has not answered the last time


class ControllerCarrier:
    """Carries bytes to clients; see :class:`fedscgen.deployment.Carrier`.

    The engine doesn't tell which clients are alive, so that all count as connected. One that hasn't answered is asked
    again, but the others don't wait for it as long as the first time.

    Parameters
    ----------
    state
        The engine's state that runs: it knows the clients, and sends.
    mailbox
        Where answers come to.
    answer
        What the coordinator's own site says.
    """

    def __init__(self, state: AppState, mailbox: Mailbox, answer: Callable[[Buffer], Buffer]) -> None:
        self._state = state
        self._mailbox = mailbox
        self._answer = answer
        self._number = 0
        self._awaited: set[tuple[str, str]] = set()
        self._silent: set[str] = set()
        mailbox.accepts = self._is_awaited

    def online(self) -> set[str]:
        """All clients."""
        return set(self._state.clients)

    def exchange(self, letters: Mapping[str, Buffer], timeout: float) -> Iterator[tuple[str, Buffer | Failure]]:
        """Send bytes to clients, and give what they answer; the own site works while the others do."""
        began = time.monotonic()
        self._number += 1
        own = self._state.id
        others = {client: data for client, data in letters.items() if client != own}
        self._awaited = {(client, answer_memo(self._number)) for client in others}
        self._send(others)
        if own in letters:
            yield own, self._answer(letters[own])
        grace = min(timeout, _GRACE_SECONDS)
        pending = {client: began + (grace if client in self._silent else timeout) for client in others}
        while pending:
            letter = self._mailbox.take(max(pending.values()) - time.monotonic())
            if letter is None:
                break
            if letter.memo == answer_memo(self._number) and letter.client in pending:
                del pending[letter.client]
                yield letter.client, _read(letter)
        self._silent = (self._silent | set(pending)) - (set(others) - set(pending))

    def _send(self, letters: Mapping[str, Buffer]) -> None:
        """Together where all get the same, as the controller takes one message at a time."""
        memo = question_memo(self._number)
        everybody = self.online() - {self._state.id}
        if letters and set(letters) == everybody and len({id(data) for data in letters.values()}) == 1:
            self._state.broadcast_data(bytes(next(iter(letters.values()))), send_to_self=False, memo=memo)
            return
        for client, data in letters.items():
            self._state.send_data_to_participant(bytes(data), client, memo=memo)

    def _is_awaited(self, letter: Letter) -> bool:
        """Whether it is the answer to the last question; true once for each client."""
        awaited = (letter.client, letter.memo) in self._awaited
        self._awaited.discard((letter.client, letter.memo))
        if not awaited:
            self._silent.discard(letter.client)
        return awaited


def _read(letter: Letter) -> Buffer | Failure:
    try:
        return read_frame(letter.data)
    except FrameError as error:
        return Failure(f"what it answered can't be read: {error}")
