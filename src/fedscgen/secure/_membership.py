"""How the sites of a run get to know each other over a coordinator whom they don't trust.

Every site shows a signed key of its own. The first by name makes a key for all of them, and seals it for each of the
others. It is bound to what all have agreed on: a site that was told something else can't open it.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._identity import Identity, is_signed
from fedscgen.secure._introduction import SITE, check_introduction, claim, introduce
from fedscgen.secure._keys import KEY_LENGTH, KeyPair, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from fedscgen.secure._sum_id import SumId


@dataclass(frozen=True, repr=False)
class Membership:
    """What a site knows of a run whose other sites it has got to know.

    Parameters
    ----------
    run
        Fingerprints of all that was agreed on: who was told otherwise of any of it signs and checks something else.
    least
        Fewest sites in any sum.
    identities
        Public identity of every site, by name.
    group_key
        What all sites have, and the coordinator hasn't.
    """

    run: str
    least: int
    identities: Mapping[str, bytes]
    group_key: bytes

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-serialisable values."""
        identities = {site: key.hex() for site, key in self.identities.items()}
        return {**vars(self), "identities": identities, "group_key": self.group_key.hex()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        identities = {site: bytes.fromhex(key) for site, key in content["identities"].items()}
        return cls(content["run"], content["least"], identities, bytes.fromhex(content["group_key"]))

    def claim_survivors(self, sum_id: SumId, survivors: Sequence[str]) -> bytes:
        """What a site signs of the sites that are in a sum."""
        return claim("survivors", self.run, sum_id.session, sum_id.number, *survivors)

    def check_keys(
        self,
        sum_id: SumId,
        rule: tuple[int, bool],
        signatures: Mapping[str, bytes],
        channel: Mapping[str, bytes],
        mask: Mapping[str, bytes],
    ) -> None:
        """Refuse public keys of anybody who isn't a site of the run, or has signed none for this sum and this rule."""
        strangers = sorted(set(signatures).difference(self.identities))
        if strangers:
            raise ValueError(f"site {strangers[0]!r} is none of this run")
        for site, signature in signatures.items():
            claimed = claim_keys(self.run, sum_id, rule, site, channel[site], mask[site])
            if not is_signed(claimed, signature, self.identities[site]):
                raise ValueError(
                    f"site {site!r} has not signed these keys: they are somebody else's, or of another sum"
                )

    def check_confirmed(
        self,
        sum_id: SumId,
        signers: Sequence[str],
        signatures: Sequence[bytes],
        confirmed: Sequence[str] | None,
        survivors: Sequence[str],
        least: int,
    ) -> None:
        """Refuse to unmask a sum unless so many sites have signed the same list as this one.

        Of ``n`` sites, two groups of ``least`` have ``2 * least - n`` in common. If that is more than are in league
        with the coordinator, one of them is honest, and no two lists are signed.
        """
        if survivors != confirmed:
            raise ValueError("the sites in the sum are others than those that this site has confirmed")
        if len(set(signers)) != len(signers) or not set(signers) <= set(survivors):
            raise ValueError(f"confirmed by {signers}, of whom each must be in the sum and once")
        if len(signers) < least:
            raise ValueError(f"confirmed by {len(signers)} sites, and {least} have to")
        claim = self.claim_survivors(sum_id, survivors)
        for site, signature in zip(signers, signatures, strict=True):
            if not is_signed(claim, signature, self.identities[site]):
                raise ValueError(f"site {site!r} was told of other sites in the sum")


def claim_keys(run: str, sum_id: SumId, rule: tuple[int, bool], site: str, channel: bytes, mask: bytes) -> bytes:
    """What a site signs of its public keys for a sum, and of the rule by which sites may be missing from it."""
    return claim("keys", run, sum_id.session, sum_id.number, *rule, site, channel.hex(), mask.hex())


class Introductions:
    """A site's part in getting to know the others of a run.

    Parameters
    ----------
    site, identity
        Whose.
    run
        Fingerprint of what was agreed on.
    """

    def __init__(self, site: str, identity: Identity, run: str) -> None:
        self._site = site
        self._identity = identity
        self._run = run
        self._channel = KeyPair()
        self._agreed = ""
        self._least = 0
        self._identities: dict[str, bytes] = {}
        self._channels: dict[str, bytes] = {}

    def introduce(self) -> dict[str, str]:
        """Show the site's public identity and key, signed."""
        return introduce(SITE, self._site, self._identity, self._channel.public, self._run)

    def meet(
        self, agreed: str, introductions: Mapping[str, Mapping[str, str]], least: int, trusted: Mapping[str, str] | None
    ) -> tuple[Membership, dict[str, str]] | None:
        """Check who the others are. The first by name gets its membership, and what it has sealed for the others.

        Parameters
        ----------
        agreed
            Fingerprint of what has been agreed on since.
        introductions
            What each site has shown, by name.
        least
            Fewest sites in any sum.
        trusted
            Fingerprint of every site's identity by name, as the site's operator has it from the others; ``None``
            believes what the coordinator passes on.

        Raises
        ------
        AggregationError
            A site isn't known, or somebody else speaks in its name.
        """
        shown_by = {
            site: check_introduction(SITE, site, shown, None if site == self._site else trusted, self._run)
            for site, shown in introductions.items()
        }
        identities = {site: identity for site, (identity, _) in shown_by.items()}
        if identities.get(self._site) != self._identity.public:
            raise AggregationError(f"site {self._site!r} isn't introduced as itself")
        if len(set(identities.values())) < len(identities):
            raise AggregationError("two sites have the same identity: every site needs one of its own")
        self._channels = {site: channel for site, (_, channel) in shown_by.items()}
        self._identities, self._agreed, self._least = identities, agreed, least  # all of them, or none is met
        if self._site != min(self._identities):
            return None
        membership = self._make_membership(secrets.token_bytes(KEY_LENGTH))
        sealed = {
            peer: seal(self._agree(peer), membership.group_key, self._context(self._site, peer)).hex()
            for peer in self._identities
            if peer != self._site
        }
        return membership, sealed

    def join(self, sealed: bytes) -> Membership:
        """Open the group's key, which the first site has sealed for this one.

        Raises
        ------
        AggregationError
            It was altered, sealed by a site that was told something else of the run, or comes before this site has met
            the others.
        """
        if not self._identities:
            raise AggregationError(f"the group's key comes before site {self._site!r} has met the others")
        leader = min(self._identities)
        try:
            key = unseal(self._agree(leader), sealed, self._context(leader, self._site))
        except ValueError as error:
            raise AggregationError(f"the group's key from site {leader!r} was {error}") from error
        return self._make_membership(key)

    def to_json(self) -> dict[str, Any]:
        """All but the identity, as JSON-serialisable values; the channel's private half is among them."""
        keys = {site: [key.hex(), self._channels[site].hex()] for site, key in self._identities.items()}
        about = {"run": self._run, "agreed": self._agreed, "least": self._least}
        return {**about, "channel": self._channel.secret.hex(), "keys": keys}

    @classmethod
    def from_json(cls, site: str, identity: Identity, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        read = cls(site, identity, content["run"])
        read._channel = KeyPair(bytes.fromhex(content["channel"]))
        read._agreed, read._least = content["agreed"], content["least"]
        read._identities = {name: bytes.fromhex(key) for name, (key, _) in content["keys"].items()}
        read._channels = {name: bytes.fromhex(key) for name, (_, key) in content["keys"].items()}
        return read

    @property
    def name(self) -> str:
        """Of the run, as its sites sign it: :attr:`Membership.run`. None before the site has met the others."""
        return f"{self._run} {self._agreed}" if self._identities else ""

    def _make_membership(self, group_key: bytes) -> Membership:
        return Membership(self.name, self._least, self._identities, group_key)

    def _agree(self, peer: str) -> bytes:
        try:
            return self._channel.agree(self._channels[peer], b"fedscgen group key 1" + self._run.encode())
        except ValueError as error:
            raise AggregationError(f"site {peer!r} shows a key that is none: {error}") from error

    def _context(self, sender: str, receiver: str) -> bytes:
        known = {site: (self._identities[site].hex(), self._channels[site].hex()) for site in sorted(self._identities)}
        return json.dumps([self._run, self._agreed, sender, receiver, known]).encode()
