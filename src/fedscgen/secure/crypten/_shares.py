"""Additive shares of a vector of words, each sealed for the one compute party that may hold it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.secure._identity import SIGNATURE_LENGTH, is_signed
from fedscgen.secure._keys import KEY_LENGTH, KeyPair, add_mask, add_masks, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._identity import Identity
    from fedscgen.secure.crypten._terms import Terms

_SHOWN = KEY_LENGTH + SIGNATURE_LENGTH


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
    shares: Sequence[bytes | memoryview], keys: Mapping[str, bytes], terms: Terms, sender: str, identity: Identity
) -> dict[str, bytes]:
    """Encrypt each share to its party's public key. The coordinator, which relays it, sees ciphertext.

    One fresh X25519 key pair serves all parties; its public half and the sender's signature precede each ciphertext.
    """
    pair = KeyPair()
    shown = pair.public + identity.sign(terms.claim_share(sender, pair.public))
    sealed = {}
    for (party, key), share in zip(keys.items(), shares, strict=True):
        context = terms.context(sender, party)
        sealed[party] = seal(pair.agree(key, context), share, context, after=shown)
    return sealed


def unseal_share(
    pair: KeyPair, sealed: memoryview, terms: Terms, sender: str, party: str, identity: str | None
) -> bytes:
    """Decrypt what :func:`seal_for_parties` made for this party, on these terms; of anybody without an ``identity``.

    Raises
    ------
    ValueError
        It is somebody else's, was altered, or is meant for another party or sum, or sealed on other terms.
    """
    public, signature = bytes(sealed[:KEY_LENGTH]), bytes(sealed[KEY_LENGTH:_SHOWN])
    if identity is not None and not is_signed(terms.claim_share(sender, public), signature, bytes.fromhex(identity)):
        raise ValueError("it is not signed, or on other terms, or somebody else's")
    context = terms.context(sender, party)
    return unseal(pair.agree(public, context), sealed[_SHOWN:], context)
