"""How messages travel between server and sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fedscgen._types import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fedscgen._types import Buffer
    from fedscgen.federation._client import Client


class SiteError(RuntimeError):
    """A site could not answer; the message names it and what it was asked."""


class TooFewSitesError(SiteError):
    """Fewer sites are left than the federation goes on with."""


class Transport(Protocol):
    """Carries bytes to the sites and back."""

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites, in an order that stays."""
        ...

    def ask(self, messages: Mapping[str, Message]) -> Iterable[tuple[str, Message]]:
        """Send a message to each named site, and give the answers of those that answer, one by one as they come.

        Raises
        ------
        SiteError
            A site refused. One that can't be reached is left out instead.
        """
        ...


class InProcessTransport:
    """All sites in this process, one after the other; every message still passes through the wire format.

    Parameters
    ----------
    clients
        The sites.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = {client.site: client for client in clients}

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in the order of the clients."""
        return list(self._clients)

    def ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Have each client answer; see :class:`Transport`."""
        encoded = {id(message): message.to_buffer() for message in messages.values()}
        for site, message in messages.items():
            yield site, self._ask_one(site, message, encoded[id(message)])

    def _ask_one(self, site: str, message: Message, data: Buffer) -> Message:
        try:
            return Message.from_bytes(self._clients[site].handle(data))
        except Exception as error:
            round_ = f" in round {message.meta['round']}" if "round" in message.meta else ""
            raise SiteError(f"site {site!r} failed at {message.kind!r}{round_}: {error}") from error
