"""What a transport must provide: bytes to whoever is connected, and bytes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedscgen._types import Buffer

if TYPE_CHECKING:
    from fedscgen.deployment._site import Site


@dataclass(frozen=True)
class Failure:
    """Why no answer comes from an address.

    Parameters
    ----------
    reason
        The end of a sentence such as "north is left out: not connected".
    """

    reason: str


class Carrier(Protocol):
    """The way to whoever is connected. It carries bytes, and needs to know nothing of what they hold.

    An address is what the carrier calls one of those that are connected, such as ``"node 7"``: a site has no other name
    before it has introduced itself. The carrier vouches for addresses: nobody can answer from the address of another,
    and a site keeps its address for as long as it is connected. It should encrypt, too.
    """

    def online(self) -> set[str]:
        """Addresses that can be reached now. Who comes later, or comes back, is in what the next call gives."""
        ...

    def exchange(self, letters: Mapping[str, Buffer], timeout: float) -> Iterable[tuple[str, Buffer | Failure]]:
        """Send bytes to addresses, and give their answers one by one as they come.

        It ends when all have answered or failed, or after ``timeout`` seconds: who isn't among the answers was late. An
        answer that comes later than that must never be given as the answer to another letter.

        Parameters
        ----------
        letters
            Bytes by address. Several addresses may get the same object.
        timeout
            Seconds to wait.

        Raises
        ------
        Exception
            Nothing can be carried any more. That one address can't be reached is a :class:`Failure` instead.
        """
        ...


class InProcessCarrier:
    """The example of a carrier: to sites of this process, which answer one after the other.

    Parameters
    ----------
    sites
        By address. A mapping that changes is a network in which sites come and go.
    """

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self._sites = sites

    def online(self) -> set[str]:
        """Addresses of the sites that there are."""
        return set(self._sites)

    def exchange(self, letters: Mapping[str, Buffer], timeout: float) -> Iterator[tuple[str, Buffer | Failure]]:
        """Have each site answer, however long that takes; see :class:`Carrier`."""
        for address, data in letters.items():
            site = self._sites.get(address)
            yield address, Failure("not connected") if site is None else site.answer(data)
