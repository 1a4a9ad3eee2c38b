"""What a site keeps from one stage of a masked sum to the next, and no longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedscgen.secure._keys import KeyPair
    from fedscgen.secure.masked._protocol import Terms


@dataclass(frozen=True, repr=False)
class AfterKeys:
    """What a site keeps when it has sent its public keys."""

    terms: Terms
    channel: KeyPair
    mask: KeyPair


@dataclass(frozen=True, repr=False)
class AfterShares:
    """What a site keeps when it has sent shares of its secrets: it can mask now. Keys are by peer."""

    terms: Terms
    sites: tuple[str, ...]
    channel_keys: Mapping[str, bytes]
    pair_keys: Mapping[str, bytes]
    seed: bytes
    own_share: bytes
    keys: str


@dataclass(frozen=True, repr=False)
class AfterTask:
    """What a site keeps when it has sent its masked term: no more than opens its peers' shares."""

    terms: Terms
    sites: tuple[str, ...]
    channel_keys: Mapping[str, bytes]
    own_share: bytes
    group: str | None
    confirmed: tuple[str, ...] | None = None
