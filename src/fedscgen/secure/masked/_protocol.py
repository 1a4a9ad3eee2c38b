"""What both halves of masked aggregation agree on: kinds of messages, what keys are good for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedscgen.secure._keys import derive, seal_length
from fedscgen.secure._sum_id import SumId
from fedscgen.secure.masked._shamir import SHARE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from fedscgen._types import Message

PUBLIC_KEYS, SHARES = "mask public keys", "encrypted key shares"
"""Kinds of the messages before the task itself, in order."""

CONFIRM, UNMASK = "confirmed sites", "unmasking shares"
"""Kinds of the messages after it. The first is left out where no site may drop out."""

MASKING = "masking"
"""Where a message's ``meta`` holds what the protocol needs."""

NEXT = "next"
"""Where a task names the sum after it, for which a site makes its keys in good time."""

LOST = "lost"
"""Where a site's answer says that it has no keys for the task's sum, as it was started after they were made."""

TOLD = "told"
"""Where a site's answer to the task says on which terms it takes part."""

SEALED_LENGTH = seal_length(2 * SHARE_LENGTH)
"""Bytes of what one site deals to another: shares of the self-mask's seed and of the mask key, encrypted."""


@dataclass(frozen=True)
class Terms:
    """What the coordinator announces when a sum begins, the same for every site.

    ``whole``: no site may be missing, so that no shares of keys are dealt.
    """

    sum_id: SumId
    threshold: int
    precision: int
    max_abs: float
    whole: bool

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        threshold, precision, max_abs = (entries[name] for name in ("threshold", "precision", "max_abs"))
        return cls(SumId.of(entries), int(threshold), int(precision), float(max_abs), entries["whole"] is True)

    @property
    def rule(self) -> tuple[int, bool]:
        """How many sites the sum needs, and whether without shares; else a site might deal what opens another's."""
        return self.threshold, self.whole

    def to_json(self) -> dict[str, Any]:
        """The terms as entries for a message's ``meta``."""
        entries = {name: value for name, value in vars(self).items() if name != "sum_id"}
        return {**self.sum_id.to_meta(), **entries}


def find_sum_id(message: Message) -> SumId:
    """Which sum a message belongs to."""
    return SumId.of(message.meta[MASKING])


def write_meta(sum_id: SumId, **entries: Any) -> dict[str, Any]:
    """Entries for the ``meta`` of a message of this sum."""
    return {MASKING: {**sum_id.to_meta(), **entries}}


def channel_context(sum_id: SumId, site: str, peer: str) -> bytes:
    """What the key of the channel between two sites is good for; the same seen from either."""
    return _context("channel", sum_id, *sorted((site, peer)))


def shares_context(sum_id: SumId, sender: str, receiver: str) -> bytes:
    """What the shares are good for that ``sender`` seals for ``receiver``."""
    return _context("key shares", sum_id, sender, receiver)


def pair_context(sum_id: SumId, site: str, peer: str) -> bytes:
    """What the mask of two sites is good for; the same seen from either."""
    return _context("pairwise mask", sum_id, *sorted((site, peer)))


def bind_mask(key: bytes, told: str) -> bytes:
    """The key of the mask of two sites on the terms that one was told; the same seen from either, if both were."""
    return derive(key, b"fedscgen masked 1 terms" + told.encode())


def self_context(sum_id: SumId, site: str) -> bytes:
    """What a site's self-mask is good for."""
    return _context("self-mask", sum_id, site, site)


def _context(purpose: str, sum_id: SumId, sender: str, receiver: str) -> bytes:
    # JSON, as mere concatenation would let two different lists of names read the same
    return json.dumps(["fedscgen masked 1", purpose, sum_id.session, sum_id.number, sender, receiver]).encode()


def majority(n_sites: int) -> int:
    """The smallest safe threshold: two groups of so many sites share one, and none reveals both secrets of a site."""
    return max(2, n_sites // 2 + 1)


def subtracts(site: str, peer: str) -> bool:
    """Whether ``site`` subtracts the mask that it shares with ``peer``. One of the two does, the other adds it."""
    return site > peer
