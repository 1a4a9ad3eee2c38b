"""A client that isn't the coordinator: it answers what the coordinator asks, until that says that it is over."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fedscgen._types import Message, WireFormatError, make_refusal
from fedscgen.featurecloud._frame import FrameError, read_frame
from fedscgen.featurecloud._memos import END, answer_memo, question_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from FeatureCloud.app.engine.app import AppState

    from fedscgen._types import Buffer
    from fedscgen.featurecloud._mailbox import Letter, Mailbox

logger = logging.getLogger(__name__)


class RunError(RuntimeError):
    """The run has ended without a result of this client; the message says why."""


def answer_questions(
    state: AppState, mailbox: Mailbox, answer: Callable[[Buffer], Buffer], patience: float, *, once: bool = False
) -> tuple[Message, bytes]:
    """Answer until the coordinator ends the run; what it says then, also in the wire format.

    Parameters
    ----------
    state
        The engine's state that runs, which sends.
    mailbox
        Where questions come to.
    answer
        What the site says to a question.
    patience
        Seconds within which the next question has to come.
    once
        Whether to answer a single one, and raise then.

    Raises
    ------
    RunError
        None has come.
    """
    last = 0

    def is_new(letter: Letter) -> bool:
        return letter.client == state.coordintor_id and (letter.memo == END or _number(letter) > last)

    mailbox.accepts = is_new
    deadline = time.monotonic() + patience
    while (letter := mailbox.take(deadline - time.monotonic())) is not None:
        while (later := mailbox.take(0)) is not None:  # the coordinator no longer waits for what it has asked before
            letter = later if is_new(later) else letter
        if letter.memo == END:
            return _read_end(letter)
        if not is_new(letter):  # come before it was known who the coordinator is
            continue
        last = _number(letter)
        state.send_data_to_coordinator(bytes(_answer(letter, answer)), memo=answer_memo(last))
        if once:
            break
        deadline = time.monotonic() + patience
    raise RunError(f"nothing was heard of the coordinator for {patience:g} s: the run is over for this site")


def _number(letter: Letter) -> int:
    return question_number(letter.memo) or 0


def _answer(letter: Letter, answer: Callable[[Buffer], Buffer]) -> Buffer:
    try:
        data = read_frame(letter.data)
    except FrameError as error:
        logger.error("refused what the coordinator has sent: %s", error)
        return make_refusal(f"what the coordinator has sent can't be read: {error}").to_buffer()
    return answer(data)


def _read_end(letter: Letter) -> tuple[Message, bytes]:
    try:
        data = read_frame(letter.data)
        message = Message.from_bytes(data)
        if message.kind != END or not isinstance(message.meta.get("reason"), str):
            raise WireFormatError(f"{message.kind!r} doesn't say why")
    except (FrameError, WireFormatError) as error:
        raise RunError(f"the coordinator has ended the run with what can't be read: {error}") from error
    return message, data
