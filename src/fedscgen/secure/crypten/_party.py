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
from fedscgen.secure._keys import KeyPair
from fedscgen.secure._sum_id import SumId
from fedscgen.secure.crypten._argmax import DealtNumbers, select, to_tensor
from fedscgen.secure.crypten._channel import Channel, serve
from fedscgen.secure.crypten._compat import load_crypten, use_randomness
from fedscgen.secure.crypten._dealer import DEALER, Needs
from fedscgen.secure.crypten._shares import add_share, unseal_share

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass
class _PartySum:
    """What a party holds of one sum, from its first share to its opening."""

    sum_id: SumId
    n_words: int
    keep_apart: bool
    sites: list[str] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)

    def vector_for_next_site(self) -> np.ndarray:
        """Where the next share is added: the sum of all, or an empty vector if the sites are kept apart."""
        if self.keep_apart or not self.vectors:
            self.vectors.append(np.zeros(self.n_words, dtype=np.uint64))
        return self.vectors[-1]


class Party:
    """Does what the coordinator asks: begins a sum, takes each site's share, opens the result with the other parties.

    It trusts the coordinator with nothing that would single out a site: a sum is opened once, and over no fewer than
    two sites.
    """

    def __init__(self, rank: int, n_parties: int) -> None:
        self._rank = rank
        self._n_parties = n_parties
        self._keys = KeyPair()
        self._sum: _PartySum | None = None
        self._begun: set[SumId] = set()

    def introduce(self) -> Message:
        """Tell that the party can begin, and the public key with which sites seal its shares."""
        return Message("ready", {"public_key": self._keys.public.hex()})

    def handle(self, message: Message) -> Message:
        """Perform one stage.

        Raises
        ------
        AggregationError
            The message is out of order or can't be decrypted, or would single out a site; the sum is gone.
        """
        held, self._sum = self._sum, None
        if message.kind == "begin":
            return self._begin(message)
        stages: dict[str, Callable[[_PartySum, Message], Message]] = {"share": self._take_share, "open": self._open}
        if message.kind not in stages or held is None or held.sum_id != SumId.of(message.meta):
            raise AggregationError(f"{message.kind!r} belongs to no sum that was begun here")
        return stages[message.kind](held, message)

    def _begin(self, message: Message) -> Message:
        sum_id = SumId.of(message.meta)
        if sum_id in self._begun:
            raise AggregationError("this sum has been begun before: its shares are taken once")
        self._begun.add(sum_id)
        self._sum = _PartySum(sum_id, int(message.meta["n_words"]), bool(message.meta["keep_apart"]))
        return Message("begun")

    def _take_share(self, held: _PartySum, message: Message) -> Message:
        site = str(message.meta["site"])
        if site in held.sites:
            raise AggregationError(f"site {site!r} has contributed already")
        try:
            share = self._unseal(held, message, site)
            add_share(held.vector_for_next_site(), share, is_seed=self._rank < self._n_parties - 1)
        except ValueError as error:
            raise AggregationError(f"the share of site {site!r} is refused: {error}") from error
        held.sites.append(site)
        self._sum = held
        return Message("held")

    def _open(self, held: _PartySum, message: Message) -> Message:
        """Put the result together with the other parties; the first passes it on."""
        if len(held.sites) < 2:
            raise AggregationError(f"a sum over {len(held.sites)} sites would open one site's term: at least 2")
        result = self._select(held, message) if held.keep_apart else to_tensor(held.vectors[0])
        opened = result.reveal(dst=0)
        return Message("opened", {}, {} if opened is None else {"words": opened.numpy().view(np.uint64).reshape(-1)})

    def _select(self, held: _PartySum, message: Message) -> Any:
        n_keys, n_dimensions = int(message.meta["n_keys"]), int(message.meta["n_dimensions"])
        needs = Needs.of_selection(self._n_parties, len(held.sites), n_keys, n_dimensions)
        use_randomness(DealtNumbers(self._unseal(held, message, DEALER), needs))
        return select(held.vectors, n_keys, n_dimensions)

    def _unseal(self, held: _PartySum, message: Message, sender: str) -> bytes:
        return unseal_share(self._keys, message.arrays["sealed"].data, held.sum_id, sender, self._rank)


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
