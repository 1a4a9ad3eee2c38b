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
from fedscgen.secure.crypten._argmax import DealtNumbers, select, shared
from fedscgen.secure.crypten._channel import Channel, serve
from fedscgen.secure.crypten._compat import load_crypten, use_randomness
from fedscgen.secure.crypten._dealer import DEALER, Needs
from fedscgen.secure.crypten._shares import add_share, unseal_share

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass
class _Session:
    """One sum, from its first share to its opening."""

    name: str
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
    """Answers the coordinator: begins a session, takes each site's share, opens the result with the other parties.

    It trusts the coordinator with nothing that would single out a site: a session is opened once, and over no fewer
    than two sites.
    """

    def __init__(self, rank: int, n_parties: int) -> None:
        self._rank = rank
        self._n_parties = n_parties
        self._keys = KeyPair()
        self._session: _Session | None = None
        self._begun: set[str] = set()

    def ready(self) -> Message:
        """What the party tells when it can begin: the key with which sites seal its shares."""
        return Message("ready", {"key": self._keys.public.hex()})

    def answer(self, message: Message) -> Message:
        """Perform one stage.

        Raises
        ------
        AggregationError
            The message is out of order or can't be decrypted, or would single out a site; the session is gone.
        """
        session, self._session = self._session, None
        if message.kind == "begin":
            return self._begin(message)
        stages: dict[str, Callable[[_Session, Message], Message]] = {"share": self._take_share, "open": self._open}
        if message.kind not in stages or session is None or session.name != message.meta["session"]:
            raise AggregationError(f"{message.kind!r} belongs to no session that was begun here")
        return stages[message.kind](session, message)

    def _begin(self, message: Message) -> Message:
        name = str(message.meta["session"])
        if name in self._begun:
            raise AggregationError("this session has been begun before: its shares are taken once")
        self._begun.add(name)
        self._session = _Session(name, int(message.meta["n_words"]), bool(message.meta["keep_apart"]))
        return Message("begun")

    def _take_share(self, session: _Session, message: Message) -> Message:
        site = str(message.meta["site"])
        if site in session.sites:
            raise AggregationError(f"site {site!r} has contributed already")
        try:
            share = self._unseal(session, message, site)
            add_share(session.vector_for_next_site(), share, is_seed=self._rank < self._n_parties - 1)
        except ValueError as error:
            raise AggregationError(f"the share of site {site!r} is refused: {error}") from error
        session.sites.append(site)
        self._session = session
        return Message("held")

    def _open(self, session: _Session, message: Message) -> Message:
        """Put the result together with the other parties; the first passes it on."""
        if len(session.sites) < 2:
            raise AggregationError(f"a sum over {len(session.sites)} sites would open one site's term: at least 2")
        opened = (self._select(session, message) if session.keep_apart else shared(session.vectors[0])).reveal(dst=0)
        return Message("opened", {}, {} if opened is None else {"words": opened.numpy().view(np.uint64).reshape(-1)})

    def _select(self, session: _Session, message: Message) -> Any:
        n_keys, n_dimensions = int(message.meta["n_keys"]), int(message.meta["n_dimensions"])
        needs = Needs.of_selection(self._n_parties, len(session.sites), n_keys, n_dimensions)
        use_randomness(DealtNumbers(self._unseal(session, message, DEALER), needs))
        return select(session.vectors, n_keys, n_dimensions)

    def _unseal(self, session: _Session, message: Message, sender: str) -> bytes:
        return unseal_share(self._keys, message.arrays["sealed"].data, session.name, sender, self._rank)


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
    return party.ready(), party.answer


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
