"""What a compute party runs in its own process: hold a share of each site, and open only what covers several sites."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._identity import Identity
from fedscgen.secure._introduction import PARTY, introduce
from fedscgen.secure._keys import KeyPair
from fedscgen.secure._sum_id import SumId
from fedscgen.secure.crypten._argmax import DealtNumbers, select, to_tensor
from fedscgen.secure.crypten._channel import Channel, serve
from fedscgen.secure.crypten._compat import load_crypten, use_randomness
from fedscgen.secure.crypten._dealer import DEALER, Needs
from fedscgen.secure.crypten._shares import add_share, unseal_share
from fedscgen.secure.crypten._terms import SELECTION, Terms

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass
class _PartySum:
    """What a party holds of one sum, from the key that it advertises to its opening."""

    sum_id: SumId
    keys: KeyPair = field(default_factory=KeyPair)
    terms: Terms | None = None
    sites: list[str] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)

    def vector_for_next_site(self, terms: Terms) -> np.ndarray:
        """Where the next share is added: the sum of all, or an empty vector if the sites are kept apart."""
        if terms.purpose == SELECTION or not self.vectors:
            self.vectors.append(np.zeros(terms.n_words, dtype=np.uint64))
        return self.vectors[-1]


class Party:
    """Does what the coordinator asks: begins a sum, takes each site's share, opens the result with the other parties.

    It trusts the coordinator with nothing that would single out a site. What a sum is of, and over whom, the sites say,
    who seal their shares on these terms: a sum is opened once, over sites that know each other and no fewer than they
    agree to.
    """

    def __init__(self, rank: int, n_parties: int) -> None:
        self._name = f"party {rank}"
        self._takes_seeds = rank < n_parties - 1
        self._n_parties = n_parties
        self._identity = Identity()
        self._sum: _PartySum | None = None
        self._begun: set[SumId] = set()
        self._groups: dict[tuple[str, str], list[str]] = {}  # sites of the sums that were opened, by run and group

    def introduce(self) -> Message:
        """Tell that the party can begin, and who it is."""
        return Message("ready", {"identity": self._identity.public.hex()})

    def handle(self, message: Message) -> Message:
        """Perform one stage.

        Raises
        ------
        AggregationError
            The message is out of order or can't be decrypted, or would single out a site; the sum is gone.
        """
        held, self._sum = self._sum, None
        if message.kind == "advertise":
            return self._advertise(SumId.of(message.meta))
        if held is None or held.sum_id != SumId.of(message.meta):
            raise AggregationError(f"{message.kind!r} belongs to no sum that was begun here")
        if message.kind == "begin" and held.terms is None:
            return self._begin(held, message)
        stages: dict[str, Callable[[_PartySum, Terms, Message], Message]] = {
            "share": self._take_share,
            "open": self._open,
        }
        if message.kind not in stages or held.terms is None:
            raise AggregationError(f"{message.kind!r} is out of order")
        return stages[message.kind](held, held.terms, message)

    def _advertise(self, sum_id: SumId) -> Message:
        """Show a new public key, with which sites seal their shares for this sum."""
        if sum_id in self._begun:
            raise AggregationError("this sum has been begun before: its shares are taken once")
        self._begun.add(sum_id)
        self._sum = held = _PartySum(sum_id)
        public = held.keys.public
        shown = introduce(PARTY, self._name, self._identity, public, sum_id.session, sum_id.number)
        return Message("advertised", {"shown": shown})

    def _begin(self, held: _PartySum, message: Message) -> Message:
        """Take the terms on which all sites share."""
        held.terms = Terms.from_json(message.meta["terms"])
        if held.terms.sum_id != held.sum_id:
            raise AggregationError("these are the terms of another sum")
        self._sum = held
        return Message("begun")

    def _take_share(self, held: _PartySum, terms: Terms, message: Message) -> Message:
        site = str(message.meta["site"])
        if site in held.sites:
            raise AggregationError(f"site {site!r} has contributed already")
        if terms.sites is not None and site not in terms.sites:
            raise AggregationError(f"site {site!r} is none of this sum")
        try:
            share = self._unseal(held, terms, message, site, None if terms.sites is None else terms.sites[site])
            add_share(held.vector_for_next_site(terms), share, is_seed=self._takes_seeds)
        except ValueError as error:
            raise AggregationError(f"the share of site {site!r} is refused: {error}") from error
        held.sites.append(site)
        self._sum = held
        return Message("held")

    def _open(self, held: _PartySum, terms: Terms, message: Message) -> Message:
        """Put the result together with the other parties; the first passes it on."""
        least = max(2, terms.least)
        if len(held.sites) < least:
            raise AggregationError(
                f"a sum over {len(held.sites)} sites would open what they don't agree to: at least {least}"
            )
        if terms.run and self._groups.setdefault((terms.run, terms.group), sorted(held.sites)) != sorted(held.sites):
            raise AggregationError(f"{terms.group} was open over other sites: the difference would be one site's own")
        result = self._select(held, terms, message) if terms.purpose == SELECTION else to_tensor(held.vectors[0])
        opened = result.reveal(dst=0)
        return Message("opened", {}, {} if opened is None else {"words": opened.numpy().view(np.uint64).reshape(-1)})

    def _select(self, held: _PartySum, terms: Terms, message: Message) -> Any:
        n_keys, n_dimensions = terms.shape
        needs = Needs.of_selection(self._n_parties, len(held.sites), n_keys, n_dimensions)
        try:
            dealt = self._unseal(held, terms, message, DEALER, terms.dealer)
        except ValueError as error:
            raise AggregationError(f"the dealer's numbers are refused: {error}") from error
        use_randomness(DealtNumbers(dealt, needs))
        return select(held.vectors, n_keys, n_dimensions)

    def _unseal(self, held: _PartySum, terms: Terms, message: Message, sender: str, identity: str | None) -> bytes:
        return unseal_share(held.keys, message.arrays["sealed"].data, terms, sender, self._name, identity)


def _join(options: argparse.Namespace) -> tuple[Message, Callable[[Message], Message]]:
    """Import crypten, and meet the other parties."""
    # crypten takes these from the environment only
    os.environ.update(
        RANK=str(options.rank),
        WORLD_SIZE=str(options.n_parties),
        RENDEZVOUS=options.rendezvous.as_uri(),
        DISTRIBUTED_BACKEND="gloo",
        GLOO_SOCKET_IFNAME=_LOOPBACK,
    )
    torch.set_num_threads(1)
    load_crypten(options.crypten).init()
    party = Party(options.rank, options.n_parties)
    return party.introduce(), party.handle


def main() -> None:
    """Join the other parties, and serve until the coordinator is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--n-parties", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True)
    parser.add_argument("--crypten", type=Path)
    options = parser.parse_args()
    serve(Channel(socket.socket(fileno=options.socket)), lambda: _join(options))


if __name__ == "__main__":
    main()
