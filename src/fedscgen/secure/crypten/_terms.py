"""On what terms a site shares its term: a share can be opened by who was told of the same ones, and by nobody else."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedscgen.secure._introduction import claim
from fedscgen.secure._sum_id import SumId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

SUM, SELECTION = "sum", "selection"
"""What the shares are for; the two are laid out differently."""

PARTIES, TERMS = "parties", "terms"
"""Where a task's ``meta`` holds what a site needs to share its term, and its answer's the terms on which it has."""


@dataclass(frozen=True)
class Terms:
    """All that tells one sum from another, as a site sees it.

    Parameters
    ----------
    sum_id
        The sum's name.
    purpose
        ``SUM`` or ``SELECTION``.
    shape
        Words of a sum; keys and dimensions of a selection.
    precision
        Fractional bits.
    keys
        Fingerprint of the parties' public keys for this sum.
    dealer
        Public identity of the dealer.
    run
        Fingerprint of what the run's sites have agreed on; empty outside of runs.
    group
        Sums of a run with the same one are over the same sites.
    least
        Fewest sites that may be in it.
    sites
        Public identities of those that may be, by name; of whom there is none outside of runs, where anybody may.
    """

    sum_id: SumId
    purpose: str
    shape: tuple[int, ...]
    precision: int
    keys: str
    dealer: str
    run: str = ""
    group: str = ""
    least: int = 2
    sites: Mapping[str, str] | None = None

    @property
    def n_words(self) -> int:
        """Length of every site's vector."""
        return math.prod(self.shape) + (self.shape[0] if self.purpose == SELECTION else 0)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        return {**vars(self), "sum_id": self.sum_id.to_meta(), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**content, "sum_id": SumId.of(content["sum_id"]), "shape": tuple(content["shape"])})

    def for_keys(self, keys: Mapping[str, bytes]) -> Self:
        """The same, but for other public keys of the parties."""
        return replace(self, keys=hash_keys(keys))

    def claim_share(self, sender: str, public: bytes) -> bytes:
        """What is signed by who seals shares with a key of its own."""
        return claim("share", json.dumps(self.to_json(), sort_keys=True), sender, public.hex())

    def context(self, sender: str, party: str) -> bytes:
        """What a sealed share is good for."""
        # JSON, as mere concatenation would let two different lists read the same
        return json.dumps(["fedscgen crypten 3", self.to_json(), sender, party], sort_keys=True).encode()


def hash_keys(keys: Mapping[str, bytes]) -> str:
    """Fingerprint of the parties' public keys, by party."""
    return hashlib.sha256(json.dumps([[party, key.hex()] for party, key in keys.items()]).encode()).hexdigest()
