"""A client's whole run, as the coordinator or as another: its site, the messages, the end, the outputs."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

from fedscgen._types import Message, WireFormatError, make_refusal
from fedscgen.check import CHECK_PAGE
from fedscgen.deployment import INTRODUCTION, Site, coordinate
from fedscgen.featurecloud._carrier import ControllerCarrier
from fedscgen.featurecloud._config import APP, AppConfig, read_config
from fedscgen.featurecloud._memos import END
from fedscgen.featurecloud._outputs import write_check_outputs, write_outputs
from fedscgen.featurecloud._participant import RunError, answer_questions
from fedscgen.federation import SERVER, PrivacyLedger

if TYPE_CHECKING:
    from pathlib import Path

    from FeatureCloud.app.engine.app import AppState

    from fedscgen._types import Buffer
    from fedscgen.featurecloud._config import Place
    from fedscgen.featurecloud._mailbox import Mailbox
    from fedscgen.featurecloud._progress import Progress

logger = logging.getLogger(__name__)

_LONGEST_REASON = 2000
_PATIENCE = 7200.0  # of a client that can't take part, until it is asked and can say so


class OwnSite:
    """A client's site, once its configuration has been read.

    Parameters
    ----------
    place
        Where the client is.
    progress
        Is told of every question.

    Raises
    ------
    FileNotFoundError, ValueError
        See :func:`read_config`.
    """

    def __init__(self, place: Place, progress: Progress) -> None:
        self.config: AppConfig = read_config(place)
        self.folder = place.output / APP
        self._place = place
        self._progress = progress
        self._site = Site(self.config.site, self.folder)

    def answer(self, data: Buffer) -> Buffer:
        """What the site says to a question. It takes part in no other workflow than its configuration names."""
        self._progress.follow(data)
        workflow = self.config.coordinator.workflow
        if _read_workflow(data) not in (None, workflow):
            reason = f"site {self.config.site.site!r} is configured for a {workflow}: the same workflow at all clients"
            return _refuse(self.folder, self.config.site.site, reason, data)
        answer: Buffer = self._site.answer(data)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Free the model, and remove what only a run that goes on needs."""
        self._site.close()
        for path in self.folder.glob(".*.message"):
            path.unlink()

    @property
    def has_result(self) -> bool:
        """Whether the cells are corrected or, if that is all, checked."""
        return self.folder.joinpath(CHECK_PAGE if self._only_checks else "corrected.h5ad").exists()

    @property
    def _only_checks(self) -> bool:
        return self.config.coordinator.workflow == "check"

    def take_leave(self, message: Message, data: bytes) -> None:
        """Enter into the ledger how the coordinator has ended the run.

        Raises
        ------
        RunError
            Not well; the message says why.
        """
        PrivacyLedger(self.folder / "ledger.csv").record(SERVER, self.config.site.site, message, data)
        if message.meta["reason"]:
            raise RunError(f"the coordinator has ended the run: {message.meta['reason']}")

    def finish(self) -> None:
        """Write the outputs.

        Raises
        ------
        RunError
            The site has no result.
        """
        if not self.has_result:
            raise RunError("the run has ended without this site: its log says what was refused or not answered")
        write = write_check_outputs if self._only_checks else write_outputs
        write(self.config, self.folder, self._place.output)


def lead(state: AppState, mailbox: Mailbox, place: Place, progress: Progress) -> None:
    """Run the coordinator's program, with a site of its own, and tell all others how it ended.

    Parameters
    ----------
    state
        The engine's state that runs, which sends.
    mailbox
        Where answers come to.
    place
        Where the client is.
    progress
        Is told how the run goes on.

    Raises
    ------
    Exception
        Whatever has ended the run; the others have been told.
    """
    ledger = PrivacyLedger()
    try:
        own = OwnSite(place, progress)
        config = own.config.coordinator
        config.output.mkdir(parents=True, exist_ok=True)
        ledger = PrivacyLedger(config.output / f"ledger-{config.workflow}.csv")
        with own:
            coordinate(ControllerCarrier(state, mailbox, own.answer), config)
    except Exception as error:
        _tell_end(state, ledger, str(error) or type(error).__name__)
        raise
    _tell_end(state, ledger, "")
    own.finish()


def take_part(state: AppState, mailbox: Mailbox, place: Place, progress: Progress) -> None:
    """Answer the coordinator, if the client's configuration can be used, and else tell it that it can't.

    Parameters
    ----------
    state, mailbox, place, progress
        As :func:`lead` takes them.

    Raises
    ------
    RunError
        The run has ended without a result of this client.
    FileNotFoundError, ValueError
        Its configuration can't be used; the coordinator has been told that it can't.
    """
    try:
        own = OwnSite(place, progress)
    except Exception:
        reason = f"client {place.client!r} can't use its configuration: its log says why"
        folder = place.output / APP
        folder.mkdir(parents=True, exist_ok=True)
        refuse = partial(_refuse, folder, place.client, reason)
        with suppress(RunError):  # if nobody asks
            answer_questions(state, mailbox, refuse, _PATIENCE, once=True)
        raise
    with own:
        try:
            message, data = answer_questions(state, mailbox, own.answer, own.config.site.idle_timeout)
        except RunError as error:
            if not own.has_result:
                raise
            logger.warning("%s, and this site has its result", error)
        else:
            own.take_leave(message, data)
    own.finish()


def _read_workflow(data: Buffer) -> str | None:
    """What the coordinator announces, if this is its introduction."""
    try:
        message = Message.from_bytes(data)
    except WireFormatError:
        return None  # which the site's program says
    return str(message.meta.get("workflow")) if message.kind == INTRODUCTION else None


def _refuse(folder: Path, site: str, reason: str, data: Buffer) -> Buffer:
    """Refuse a question, and enter both into the ledger."""
    ledger, refusal = PrivacyLedger(folder / "ledger.csv"), make_refusal(reason)
    encoded = refusal.to_buffer()
    with suppress(WireFormatError):
        ledger.record(SERVER, site, Message.from_bytes(data), data)
    ledger.record(site, SERVER, refusal, encoded)
    return encoded


def _tell_end(state: AppState, ledger: PrivacyLedger, reason: str) -> None:
    message = Message(END, {"reason": reason[:_LONGEST_REASON]})
    data = message.to_bytes()
    for client in state.clients:
        if client != state.id:
            ledger.record(SERVER, client, message, data)
    state.broadcast_data(data, send_to_self=False, memo=END)
