"""What both halves of masked aggregation agree on: names of stages, rounds and keys, and bytes as arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.secure._keys import sealed_length
from fedscgen.secure.masked._shamir import SHARE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from fedscgen._types import Message

PUBLIC_KEYS, SHARES, UNMASK = "mask public keys", "encrypted key shares", "unmasking shares"
"""Kinds of the messages around the task itself, in order: before it the first two, after it the last."""

MASKING = "masking"
"""Where a message's ``meta`` holds what the protocol needs."""


SEALED_LENGTH = sealed_length(2 * SHARE_LENGTH)
"""Bytes of what one site deals to another: shares of the self-mask's seed and of the mask key, encrypted."""


@dataclass(frozen=True)
class RoundId:
    """Names one sum: no key outlives it, and whatever is derived from a key is bound to it.

    Parameters
    ----------
    session
        Random name of the coordinator's session.
    number
        Which of the session's sums.
    """

    session: str
    number: int

    @classmethod
    def of(cls, message: Message) -> Self:
        """The round that a message belongs to."""
        masking = message.meta[MASKING]
        return cls(str(masking["session"]), int(masking["round"]))

    def meta(self, **entries: Any) -> dict[str, Any]:
        """Entries for the ``meta`` of a message of this round."""
        return {MASKING: {"session": self.session, "round": self.number, **entries}}

    def channel_context(self, site: str, peer: str) -> bytes:
        """What the key of the channel between two sites is good for; the same seen from either."""
        return self._context("channel", *sorted((site, peer)))

    def shares_context(self, sender: str, receiver: str) -> bytes:
        """What is sealed together with the shares that ``sender`` deals to ``receiver``."""
        return self._context("key shares", sender, receiver)

    def pair_context(self, site: str, peer: str) -> bytes:
        """What the mask of two sites is good for; the same seen from either."""
        return self._context("pairwise mask", *sorted((site, peer)))

    def self_context(self, site: str) -> bytes:
        """What a site's self-mask is good for."""
        return self._context("self-mask", site, site)

    def _context(self, purpose: str, sender: str, receiver: str) -> bytes:
        # JSON, as mere concatenation would let two different lists of names read the same
        return json.dumps(["fedscgen masked 1", purpose, self.session, self.number, sender, receiver]).encode()


@dataclass(frozen=True)
class Terms:
    """What the coordinator announces when a round begins, the same for every site."""

    round: RoundId
    threshold: int
    precision: int
    max_abs: float

    @classmethod
    def of(cls, message: Message) -> Self:
        """The terms that a message announces."""
        masking = message.meta[MASKING]
        threshold, precision, max_abs = (masking[name] for name in ("threshold", "precision", "max_abs"))
        return cls(RoundId.of(message), int(threshold), int(precision), float(max_abs))

    def meta(self) -> dict[str, Any]:
        """The terms as entries for a message's ``meta``."""
        return self.round.meta(threshold=self.threshold, precision=self.precision, max_abs=self.max_abs)


def majority(n_sites: int) -> int:
    """Fewest sites of which there can't be two disjoint groups, one revealing a self-mask, the other a mask key."""
    return max(2, n_sites // 2 + 1)


def subtracts(site: str, peer: str) -> bool:
    """Whether ``site`` subtracts the mask it shares with ``peer``; of every pair one does, so that it cancels."""
    return site > peer


def to_rows(items: Sequence[bytes], length: int) -> np.ndarray:
    """Byte strings of ``length`` each as the rows of a uint8 array."""
    return np.frombuffer(b"".join(items), dtype=np.uint8).reshape(len(items), length)


def from_rows(arrays: Mapping[str, np.ndarray], name: str, n_rows: int, length: int) -> list[bytes]:
    """Read what :func:`to_rows` made, of exactly this size.

    Raises
    ------
    ValueError
        The array is missing, or of another shape or dtype.
    """
    array = arrays.get(name)
    if array is None or array.dtype != np.uint8 or array.shape != (n_rows, length):
        found = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{name!r} is {found}, expected uint8 of shape {(n_rows, length)}")
    return [row.tobytes() for row in array]
