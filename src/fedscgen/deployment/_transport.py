"""The way to the sites by name, over whatever carries bytes: who joins, who is left out, and why."""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING

from fedscgen._types import REFUSAL, Message, WireFormatError
from fedscgen.deployment._carrier import Failure
from fedscgen.deployment._introduction import INTRODUCTION
from fedscgen.federation import SERVER, SiteError, check_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fedscgen._types import Buffer
    from fedscgen.deployment._carrier import Carrier
    from fedscgen.federation import PrivacyLedger

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # between two looks for sites that have come
_LONGEST_NAME = 200  # of a site


class CarrierTransport:
    """Carries messages to sites by name; see :class:`fedscgen.federation.Transport`.

    A site that refuses, is disconnected or takes longer than the timeout is left out, and the log says why.

    Parameters
    ----------
    carrier
        The way to whoever is connected.
    answer_timeout
        Seconds that a site has for one answer.
    ledger
        Where every message that reaches or leaves the coordinator is entered.

    Attributes
    ----------
    reasons
        Why each site that has been left out was so, last.
    """

    def __init__(self, carrier: Carrier, answer_timeout: float, ledger: PrivacyLedger) -> None:
        self.reasons: dict[str, str] = {}
        self._carrier = carrier
        self._ledger = ledger
        self._timeout = answer_timeout
        self._addresses: dict[str, str] = {}

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites that have joined, sorted."""
        return sorted(self._addresses)

    def gather(self, introduction: Message, *, n_sites: int, min_sites: int, timeout: float) -> None:
        """Tell everyone who connects what is planned, until enough sites have agreed or the time is over.

        Parameters
        ----------
        introduction
            What is planned. A site that agrees answers with its name.
        n_sites
            Sites that are waited for.
        min_sites
            Sites that are enough when the time is over.
        timeout
            Seconds to wait.

        Raises
        ------
        SiteError
            Fewer than ``min_sites`` have agreed.
        """
        deadline = time.monotonic() + timeout
        asked: set[str] = set()
        while len(self._addresses) < n_sites and time.monotonic() < deadline:
            online = self._carrier.online()
            asked &= online  # whoever comes back may have changed its mind
            newcomers = online - asked - set(self._addresses.values())
            asked |= newcomers
            if newcomers:
                self._introduce(introduction, sorted(newcomers), deadline - time.monotonic())
            if len(self._addresses) < n_sites:
                time.sleep(_LOOK_SECONDS)
        if len(self._addresses) < min_sites:
            raise SiteError(
                f"{len(self._addresses)} of {n_sites} sites have joined within {timeout:g} s ({self._list_sites()}), "
                f"and min-sites={min_sites}"
            )
        if len(self._addresses) < n_sites:
            logger.warning("begins with %d of %d sites: %s", len(self._addresses), n_sites, self._list_sites())

    def ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Send each site its message, and give the answers as they come."""
        encoded = {id(message): message.to_buffer() for message in messages.values()}
        digests = {identity: hashlib.sha256(data).hexdigest() for identity, data in encoded.items()}
        for site, message in messages.items():
            self._ledger.record(SERVER, site, message, encoded[id(message)], digest=digests[id(message)])
        names = {self._addresses[site]: site for site in messages}
        letters = {self._addresses[site]: encoded[id(message)] for site, message in messages.items()}
        for address, data in self._exchange(letters, names, self._timeout):
            answer = self._read(names[address], data, messages[names[address]])
            if answer is not None:
                self._ledger.record(names[address], SERVER, answer, data)
                yield names[address], answer

    def list_reasons(self) -> str:
        """Why sites were left out, as the end of a sentence."""
        return "".join(f"; {site}: {reason}" for site, reason in self.reasons.items())

    def _list_sites(self) -> str:
        return ", ".join(self.sites) or "none"

    def _introduce(self, introduction: Message, newcomers: Sequence[str], timeout: float) -> None:
        data = introduction.to_buffer()
        for address in newcomers:
            self._ledger.record(SERVER, address, introduction, data)
        names = {address: address for address in newcomers}
        for address, answer in self._exchange(dict.fromkeys(newcomers, data), names, timeout):
            self._admit(address, answer, introduction)

    def _admit(self, address: str, data: Buffer, introduction: Message) -> None:
        answer = self._read(address, data, introduction)
        if answer is None:
            return
        site = answer.meta.get("site")
        if answer.kind != INTRODUCTION or not isinstance(site, str) or len(site) > _LONGEST_NAME:
            self._leave_out(address, f"answered with {answer.kind!r} that names no site")
            return
        if site in self._addresses:
            self._leave_out(address, f"calls itself {site!r}, as another does: give each site a name of its own")
            return
        logger.info("site %r has joined as %s", site, address)
        self._ledger.record(site, SERVER, answer, data)
        self._addresses[site] = address

    def _exchange(
        self, letters: Mapping[str, Buffer], names: Mapping[str, str], timeout: float
    ) -> Iterator[tuple[str, Buffer]]:
        """The answers as they come; who doesn't answer is left out."""
        silent = dict(names)
        for address, answer in self._carrier.exchange(letters, timeout):
            name = silent.pop(address)
            if isinstance(answer, Failure):
                self._leave_out(name, answer.reason)
            else:
                yield address, answer
        for name in silent.values():
            self._leave_out(name, "no answer in time")

    def _read(self, name: str, data: Buffer, question: Message) -> Message | None:
        """The answer, unless it is a refusal or none at all."""
        try:
            answer = Message.from_bytes(data)
            check_answer(answer if answer.kind == REFUSAL else question, answer)
        except WireFormatError as error:
            self._leave_out(name, f"answered with {error}")
            return None
        if answer.kind == REFUSAL:
            self._ledger.record(name, SERVER, answer, data)
            self._leave_out(name, str(answer.meta.get("reason")))
            return None
        return answer

    def _leave_out(self, name: str, reason: str) -> None:
        self.reasons[name] = reason
        logger.warning("%s is left out: %s", name, reason)
