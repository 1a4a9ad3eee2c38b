"""A site as a member of a run: it knows the others, whom no coordinator can invent, and checks what is published."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.secure._aggregator import AggregationError, Contributor
from fedscgen.secure._checksum import Checksum
from fedscgen.secure._identity import Identity
from fedscgen.secure._membership import Introductions, Membership
from fedscgen.secure._opened import OpenedSum

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fedscgen._types import Message
    from fedscgen.secure._aggregator import Sums
    from fedscgen.secure._sum_id import SumId


class RunMember(Contributor):
    """Half of a contributor, masked or of shares: with whom it sums.

    Used by itself, outside of a run, it asks for no membership. Once it has introduced itself it takes part in nothing
    without.
    """

    def __init__(self, site: str, min_sites: int, max_abs: float) -> None:
        if min_sites < 2:
            raise ValueError(f"min_sites={min_sites}: at least 2, as a sum over one site is that site's term")
        self.site = site
        self.min_sites = min_sites
        self._max_abs = max_abs
        self._begun: set[SumId] = set()
        self._identity = Identity()
        self._trusted: Mapping[str, str] | None = None
        self._introductions: Introductions | None = None
        self._membership: Membership | None = None
        self._is_in_run = False
        self._groups: dict[str, tuple[str, ...]] = {}  # sites of the sums of a group, once one may be open
        self._history = ""  # fingerprint of the sums that were opened so far
        self._state: object = None  # of a sum that is under way: what its last stage has left

    def identify(self, identity: Path, trusted: Mapping[str, str] | None) -> None:
        """Be who a file says, and let nobody in but these; see :class:`~fedscgen.secure.Contributor`."""
        self._identity, self._trusted = Identity.at(identity), trusted

    def introduce(self, run: str) -> dict[str, str]:
        """Show the site's identity and a key for this run, signed."""
        self._introductions, self._membership = Introductions(self.site, self._identity, run), None
        self._is_in_run, self._groups, self._history, self._state = True, {}, "", None
        return self._introductions.introduce()

    def meet(self, agreed: str, introductions: Mapping[str, Mapping[str, str]], least: int) -> dict[str, str]:
        """Check who the others are; see :class:`~fedscgen.secure.Contributor`."""
        self._is_in_run, self._membership = True, None
        if self._introductions is None:
            raise AggregationError(f"site {self.site!r} has not introduced itself: begin the run anew")
        met = self._introductions.meet(agreed, introductions, least, self._trusted)
        if met is None:
            return {}
        self._membership, sealed = met
        return sealed

    def join(self, sealed: str) -> None:
        """Take the group's key, unless this site has made it itself."""
        if self._membership is None and self._introductions is not None:
            self._membership = self._introductions.join(bytes.fromhex(sealed))

    def save(self) -> bytes:
        """The run's membership, or what it will come from; secret keys are in it: for this site's own disk alone."""
        member, met = self._membership, self._introductions
        if member is None and met is None:
            return b""
        kept = {
            "identity": self._identity.secret.hex(),
            "groups": self._groups,
            "membership": None if member is None else member.to_json(),
            "introductions": None if member is not None or met is None else met.to_json(),
        }
        return json.dumps(kept).encode()

    def restore(self, saved: bytes) -> None:
        """Be a member again, of this run alone; a sum that was under way in another is lost."""
        before, self._membership, self._introductions = self._membership, None, None
        self._is_in_run, self._groups, self._history = True, {}, ""
        if saved:
            kept = json.loads(saved)
            self._identity = Identity(bytes.fromhex(kept["identity"]))
            self._groups = {group: tuple(sites) for group, sites in kept["groups"].items()}
            if kept["membership"] is not None:
                self._membership = Membership.from_json(kept["membership"])
            if kept["introductions"] is not None:
                self._introductions = Introductions.from_json(self.site, self._identity, kept["introductions"])
        if self._membership is None or self._membership != before:
            self._state = None  # whose keys this run has not checked

    def read_sum(self, message: Message, number: int) -> Sums:
        """What was opened, once it is known to be the sum of what the sites contributed.

        Raises
        ------
        AggregationError
            It isn't, or of fewer sites than this one agrees to.
        """
        opened, membership = OpenedSum.from_message(message), self._find_membership()
        if membership is not None:
            if len(opened.sites) < self._least or not set(opened.sites) <= set(membership.identities):
                raise AggregationError(f"site {self.site!r} believes no sum over {', '.join(opened.sites)}")
            return self._check_sum(opened, membership, number)
        return opened.decode()

    def _check_sum(self, opened: OpenedSum, membership: Membership, number: int) -> Sums:
        """The sum as numbers, if it fits its checksum; the next one's are bound to it."""
        checksum = Checksum(membership.group_key, opened.about(membership.run, number, self._history))
        history = hashlib.sha256(self._history.encode())
        with ThreadPoolExecutor(1) as beside:  # takes longer than the rest, and lets go of the interpreter
            hashing = beside.submit(history.update, np.ascontiguousarray(opened.words).data)
            fits, sums = opened.fits(checksum), opened.decode()
            hashing.result()
        if not fits:
            raise AggregationError(
                f"what is published as sum {number} is not the sum of what the sites contributed: site "
                f"{self.site!r} ends the run; tell the other sites"
            )
        self._history = history.hexdigest()
        return sums

    def _find_membership(self) -> Membership | None:
        """The membership of the run; none outside of runs."""
        if self._is_in_run and self._membership is None:
            raise AggregationError(f"site {self.site!r} has not got to know the other sites of this run")
        return self._membership

    @property
    def _run(self) -> str:
        """The run's name, which the site signs as soon as it has met the others; empty outside of runs."""
        if self._membership is None and self._introductions is not None and self._introductions.name:
            return self._introductions.name
        membership = self._find_membership()
        return "" if membership is None else membership.run

    @property
    def _least(self) -> int:
        return self.min_sites if self._membership is None else max(self.min_sites, self._membership.least)

    def _check_new(self, sum_id: SumId) -> None:
        """Refuse a sum in which this site has taken part: its keys are for one."""
        if sum_id in self._begun:
            raise AggregationError(f"site {self.site!r} has taken part in sum {sum_id.number}: begin a new one")

    def _check_bound(self, max_abs: float) -> None:
        """Refuse another bound than the site's own, by whose refusals a coordinator could learn of a value."""
        if max_abs != self._max_abs:
            raise ValueError(f"max_abs={max_abs}: this site's own bound is {self._max_abs}")

    @contextmanager
    def _explain_errors(self, message: Message) -> Iterator[None]:
        """Turn what is wrong with a message into an error that says whose and which."""
        try:
            yield
        except (LookupError, TypeError, ValueError) as error:
            raise AggregationError(f"site {self.site!r} refuses the message {message.kind!r}: {error}") from error

    def _check_sites(self, sites: Sequence[str], *, among: Sequence[str], threshold: int) -> tuple[str, ...]:
        """Check a list of sites: this one in it, each once and known, no fewer than it or the threshold demands."""
        if len(set(sites)) != len(sites) or not set(sites) <= set(among) or self.site not in sites:
            raise AggregationError(
                f"site {self.site!r} refuses the sites {list(sites)}: "
                f"they must include it, each once, and be among {list(among)}"
            )
        if len(sites) < self._least:
            raise AggregationError(
                f"site {self.site!r} refuses a sum over {len(sites)} sites: its own min_sites is {self._least}"
            )
        if len(sites) < threshold:
            raise AggregationError(
                f"site {self.site!r} refuses a sum over {len(sites)} sites: the threshold is {threshold}"
            )
        return tuple(sites)

    def _check_group(self, name: str, sites: tuple[str, ...], threshold: int, *, whole: bool) -> None:
        """All sums of a name are over the same sites; if the whole is asked for, none of them may be missing."""
        known = self._groups.get(name)
        if known is None and not whole:
            return
        if threshold < len(sites):
            raise ValueError(f"threshold={threshold} of {len(sites)} sites: no site may be missing in {name}")
        if sorted(sites) != sorted(known or sites):
            raise ValueError(
                f"{name} may be open over {', '.join(known or ())}: over {', '.join(sites)}, the difference would be "
                "one site's own"
            )
