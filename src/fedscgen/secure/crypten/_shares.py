"""Additive shares of a vector of words, each sealed for the one compute party that may hold it."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.secure._keys import KEY_LENGTH, KeyPair, add_mask, add_masks, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen.secure._sum_id import SumId


def split(words: np.ndarray, n_parties: int) -> list[bytes | memoryview]:
    """Split words into shares that add up to them modulo 2**64. Any ``n_parties - 1`` of the shares are uniform noise.

    All but the last are 32 random bytes that stand for their ChaCha20 keystream: only one share has the vector's size.
    ``words`` is overwritten.
    """
    seeds = [secrets.token_bytes(KEY_LENGTH) for _ in range(n_parties - 1)]
    add_masks(words, [(seed, True) for seed in seeds])
    return [*seeds, words.astype("<u8", copy=False).view(np.uint8).data]


def add_share(total: np.ndarray, share: bytes, *, is_seed: bool) -> None:
    """Add one party's share to ``total`` in place.

    Raises
    ------
    ValueError
        The share's length doesn't fit.
    """
    expected = KEY_LENGTH if is_seed else total.nbytes
    if len(share) != expected:
        raise ValueError(f"{len(share)} bytes long, expected {expected}")
    if is_seed:
        add_mask(total, share)
    else:
        np.add(total, np.frombuffer(share, dtype="<u8"), out=total)


def seal_for_parties(
    shares: Sequence[bytes | memoryview], keys: Sequence[bytes], sum_id: SumId, sender: str
) -> list[bytes]:
    """Encrypt each share to its party's public key. The coordinator, which relays it, sees ciphertext.

    One fresh X25519 key pair serves all parties; its public half precedes each ciphertext.
    """
    pair = KeyPair()
    sealed = []
    for party, (share, key) in enumerate(zip(shares, keys, strict=True)):
        context = _context(sum_id, sender, party)
        sealed.append(seal(pair.agree(key, context), share, context, after=pair.public))
    return sealed


def unseal_share(pair: KeyPair, sealed: memoryview, sum_id: SumId, sender: str, party: int) -> bytes:
    """Decrypt what :func:`seal_for_parties` made for this party, sender and sum.

    Raises
    ------
    ValueError
        It was altered, or is meant for another party, sender or sum.
    """
    context = _context(sum_id, sender, party)
    key = pair.agree(bytes(sealed[:KEY_LENGTH]), context)
    return unseal(key, sealed[KEY_LENGTH:], context)


def _context(sum_id: SumId, sender: str, party: int) -> bytes:
    # JSON, as mere concatenation would let two different lists read the same
    return json.dumps(["fedscgen crypten 2", sum_id.session, sum_id.number, sender, party]).encode()
