"""Opened sums and group keys on their way to the sites: enclosed in whatever message goes to a site next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen._types import Message, WireFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fedscgen._types import Buffer

GROUP_KEY = "group_key"
"""Entry of a message's meta that holds the group's key, which another site has sealed for the one that is asked."""

_ENCLOSED = "opened"
_NAME = "opened sum {}"


class Published:
    """What was opened or sealed for sites, and which of it each of them has been told."""

    def __init__(self) -> None:
        self.n_sums = 0
        self._opened: dict[int, Buffer] = {}
        self._told: dict[str, int] = {}
        self._sealed: dict[str, str] = {}

    def add(self, number: int, message: Message) -> None:
        """Publish the sum of that number."""
        self.n_sums = number
        self._opened[number] = message.to_buffer()

    def pass_on(self, sealed: Mapping[str, str]) -> None:
        """Enclose what was sealed for each site, until it has answered."""
        self._sealed = dict(sealed)

    def note(self, site: str, number: int) -> None:
        """Take down that a site knows all sums up to that number, and what was sealed for it."""
        self._told[site] = number
        self._sealed.pop(site, None)

    def let_go(self, sites: Iterable[str]) -> None:
        """Free the sums that all of these sites know."""
        known = min((self._told.get(site, 0) for site in sites), default=0)
        for number in [number for number in self._opened if number <= known]:
            del self._opened[number]

    def enclose(self, messages: Mapping[str, Message], round_: int | None) -> dict[str, Message]:
        """Messages by site with what each wasn't told yet; what goes to several sites stays one message."""
        made: dict[tuple[int, int, str], Message] = {}
        enclosed = {}
        for site, message in messages.items():
            told, sealed = self._told.get(site, 0), self._sealed.get(site, "")
            key = id(message), told, sealed
            if key not in made:
                new = {number: data for number, data in self._opened.items() if number > told}
                made[key] = _enclose(message, new, round_, sealed)
            enclosed[site] = made[key]
        return enclosed


def _enclose(message: Message, opened: Mapping[int, Buffer], round_: int | None, sealed: str) -> Message:
    """The message with opened sums by number, in the wire format, and with its round of training if it has one."""
    meta = dict(message.meta) if round_ is None else {**message.meta, "round": round_}
    if sealed:
        meta[GROUP_KEY] = sealed
    if not opened:
        return Message(message.kind, meta, message.arrays)
    arrays = {_NAME.format(number): np.frombuffer(data, dtype=np.uint8) for number, data in opened.items()}
    return Message(message.kind, {**meta, _ENCLOSED: list(opened)}, {**message.arrays, **arrays})


def take_out(message: Message) -> tuple[Message, dict[int, Message]]:
    """The message without sums that were enclosed in it, and these by number.

    Raises
    ------
    WireFormatError
        It says that it encloses what isn't there.
    """
    if _ENCLOSED not in message.meta:
        return message, {}
    meta, arrays = dict(message.meta), dict(message.arrays)
    try:
        opened = {int(n): Message.from_bytes(arrays.pop(_NAME.format(int(n))).data) for n in meta.pop(_ENCLOSED)}
    except (KeyError, TypeError) as error:
        raise WireFormatError(f"{message.kind!r} encloses no opened sum: {error}") from error
    return Message(message.kind, meta, arrays), opened
