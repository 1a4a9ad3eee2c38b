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
    """What a site keeps when it has sent shares of its secrets: it can mask now. Keys are by peer.

    Where nobody may be missing, nobody's secrets are ever recovered: there is no self-mask, and no share.
    """

    terms: Terms
    sites: tuple[str, ...]
    channel_keys: Mapping[str, bytes]
    pair_keys: Mapping[str, bytes]
    keys: str
    seed: bytes | None = None
    own_share: bytes = b""


@dataclass(frozen=True, repr=False)
class AfterTask:
    """What a site keeps when it has sent its masked term: no more than opens its peers' shares."""

    terms: Terms
    sites: tuple[str, ...]
    channel_keys: Mapping[str, bytes]
    own_share: bytes
    group: str | None
    confirmed: tuple[str, ...] | None = None
