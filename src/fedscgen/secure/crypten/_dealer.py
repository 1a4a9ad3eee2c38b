"""The dealer: a process that gives the compute parties random numbers to multiply with, and never sees a share.

To multiply shared numbers x and y takes a random triple a, b, c = a * b, and every party holds a share of each. The
parties open x - a and y - b, which are noise without knowledge of a and b (Beaver 1992, "Efficient Multiparty Protocols
Using Circuit Randomization"). The dealer knows a and b, so it is a process of its own. It draws them from the
operating system's randomness, seals them for the parties, signed, and is told nothing that they open.
"""

from __future__ import annotations

import argparse
import secrets
import socket
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._identity import Identity
from fedscgen.secure._keys import KEY_LENGTH, add_mask, derive
from fedscgen.secure.crypten._channel import Channel, serve
from fedscgen.secure.crypten._shares import seal_for_parties
from fedscgen.secure.crypten._terms import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping

DEALER = "dealer"


@dataclass(frozen=True)
class Needs:
    """How many random numbers of each kind a computation uses up.

    Parameters
    ----------
    products
        Triples c = a * b modulo 2**64.
    ands
        Triples c = a & b of 64 bits each.
    bits
        Random bits, shared by exclusive or and by sum.
    """

    products: int
    ands: int
    bits: int

    @classmethod
    def of_selection(cls, n_parties: int, n_sites: int, n_keys: int, n_dimensions: int) -> Needs:
        """What it takes to find the site with the largest key, for each key, and to select its values.

        Every two sites are compared once: crypten adds up the parties' shares bitwise, each addition a carry tree of
        13 words, and turns the sign bit into a sum. The comparisons are multiplied into one-hot vectors, and these
        with the values.
        """
        comparisons = n_sites * (n_sites - 1) // 2 * n_keys
        selectors = n_sites * n_keys
        return cls(
            products=selectors * (n_sites - 2 + n_dimensions), ands=13 * (n_parties - 1) * comparisons, bits=comparisons
        )


def expand(seed: bytes, needs: Needs) -> dict[str, np.ndarray]:
    """All numbers that a party draws from its seed; the first party's are corrected by :func:`corrections`."""
    sizes = {
        "a": needs.products, "b": needs.products, "c": needs.products,
        "x": needs.ands, "y": needs.ands, "z": needs.ands,
        "bit": needs.bits, "sum": needs.bits,
    }  # fmt: skip
    drawn = {}
    for name, size in sizes.items():
        drawn[name] = np.zeros(size, dtype=np.uint64)
        add_mask(drawn[name], derive(seed, f"fedscgen crypten 2 {name}".encode()))
    drawn["bit"] &= np.uint64(1)
    return drawn


def corrections(drawn: list[dict[str, np.ndarray]]) -> bytes:
    """What the first party adds to its ``c``, ``z`` and ``sum`` so that all parties' shares fit together."""
    total = {name: sum(part[name] for part in drawn) for name in ("a", "b", "c", "sum")}
    joint = {name: np.bitwise_xor.reduce([part[name] for part in drawn]) for name in ("x", "y", "z", "bit")}
    products = total["a"] * total["b"] - total["c"]
    ands = (joint["x"] & joint["y"]) ^ joint["z"]
    bits = joint["bit"] - total["sum"]
    return np.concatenate([products, ands, bits]).astype("<u8", copy=False).tobytes()


def correct(drawn: Mapping[str, np.ndarray], correction: bytes) -> None:
    """Apply what :func:`corrections` made to the first party's numbers, in place."""
    words = np.frombuffer(correction, dtype="<u8")
    products, ands, bits = np.split(words, np.cumsum([drawn["c"].size, drawn["z"].size]))
    drawn["c"][...] += products
    drawn["z"][...] ^= ands
    drawn["sum"][...] += bits


def deal(identity: Identity, keys: Mapping[str, bytes], needs: Needs, terms: Terms) -> dict[str, bytes]:
    """Draw what a computation needs and seal each party's part of it: a seed, for the first with corrections.

    It is good for these keys alone: to parties whose sites were shown others it is of no use.
    """
    seeds = [secrets.token_bytes(KEY_LENGTH) for _ in keys]
    correction = corrections([expand(seed, needs) for seed in seeds])
    parts = [seeds[0] + correction, *seeds[1:]]
    return seal_for_parties(parts, keys, terms.for_keys(keys), DEALER, identity)


def ask_for_numbers(terms: Mapping[str, Any], needs: Needs, keys: Mapping[str, str]) -> Message:
    """Write the message that asks the dealer for what a computation needs, sealed with the parties' public keys."""
    return Message("deal", {"terms": terms, "public_keys": keys, "needs": asdict(needs)})


def _handle(identity: Identity, message: Message) -> Message:
    if message.kind != "deal":
        raise AggregationError(f"the dealer has no answer to a message of kind {message.kind!r}")
    keys = {party: bytes.fromhex(key) for party, key in message.meta["public_keys"].items()}
    sealed = deal(identity, keys, Needs(**message.meta["needs"]), Terms.from_json(message.meta["terms"]))
    return Message("dealt", {}, {party: np.frombuffer(part, np.uint8) for party, part in sealed.items()})


def main() -> None:
    """Deal until the coordinator is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    channel = Channel(socket.socket(fileno=parser.parse_args().socket))
    identity = Identity()
    serve(channel, lambda: (Message("ready", {"identity": identity.public.hex()}), partial(_handle, identity)))


if __name__ == "__main__":
    main()
