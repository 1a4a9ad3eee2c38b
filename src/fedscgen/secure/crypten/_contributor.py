"""The site's half of secret sharing: split a term, and seal each share for the one compute party that may hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._extras import missing_extra
from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Contribution, Sums
from fedscgen.secure._fixed_point import check_precision, encode
from fedscgen.secure._protection import Protection
from fedscgen.secure._selection import KEYS, VALUES, read_selection
from fedscgen.secure._sum_id import SumId
from fedscgen.secure._vector import Manifest, flatten

try:
    from fedscgen.secure._checksum import N_CHECKS, Checksum
    from fedscgen.secure._introduction import PARTY, check_fingerprint, check_introduction
    from fedscgen.secure._member import RunMember
    from fedscgen.secure._opened import describe_sum
    from fedscgen.secure.crypten._dealer import DEALER
    from fedscgen.secure.crypten._shares import seal_for_parties, split
    from fedscgen.secure.crypten._terms import PARTIES, SELECTION, SUM, TERMS, Terms, hash_keys
except ModuleNotFoundError:
    raise missing_extra("the crypten aggregator needs", "cryptography", "crypten") from None

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._membership import Membership

MAX_ABS = 2.0**32
"""Bound on a site's weight times value, where no other is asked for."""

_MAX_KEY = 2.0**53


class CryptenContributor(RunMember):
    """A site's half: splits its term into shares and seals one for each compute party.

    Parameters
    ----------
    site
        The site's name, as the coordinator calls it.
    parties
        Fingerprints of the compute parties and of their dealer by name, as their people tell them. The site shares
        its terms among all of these parties, and gives nobody else a share.
    min_sites
        Fewest sites in any sum that this site contributes to.
    max_abs
        Bound on this site's weight times value, which no coordinator can change: else a refusal would tell of a value.

    Raises
    ------
    ValueError
        ``min_sites`` is below 2: a sum over one site is that site's term.
    """

    def __init__(
        self,
        site: str,
        *,
        parties: Mapping[str, str] | None = None,
        min_sites: int = 2,
        max_abs: float = MAX_ABS,
    ) -> None:
        super().__init__(site, min_sites, max_abs)
        self._parties = {} if parties is None else parties
        self._selections: set[int] = set()  # numbers of the sums that are ones

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Encode the term in fixed point, share it, and seal the shares.

        The answer's ``meta`` lists names and shapes, which are public. Its arrays are ciphertext, one per party.

        Raises
        ------
        AggregationError
            A compute party isn't known here, or has not signed its key for this sum; a value can't be encoded; or the
            task wasn't asked by a :class:`CryptenAggregator`.
        """
        if PARTIES not in task.meta:
            raise AggregationError(f"site {self.site!r} contributes shares only: run the task with a CryptenAggregator")
        with self._explain_errors(task):
            return self._share(contribution, task)

    def find_sites(self, task: Message) -> Sequence[str]:
        """Those that are asked; the parties open no sum with anybody else in it."""
        sites: Sequence[str] = task.meta.get(PARTIES, {}).get("sites", ())
        return sites

    def read_sum(self, message: Message, number: int) -> Sums:
        """What was opened, if it is the sites' sum. Of a selection, of which there is no checksum, it is believed."""
        if set(message.arrays) == {VALUES} and (number in self._selections or not self._is_in_run):
            return Sums.from_message(message)
        return super().read_sum(message, number)

    def _share(self, contribution: Contribution, task: Message) -> Message:
        told, membership = task.meta[PARTIES], self._find_membership()
        sum_id, precision = SumId.of(told), int(told["precision"])
        keys = self._take_keys(told, sum_id)
        known = told["sites"] if membership is None else membership.identities
        sites = self._check_sites(told["sites"], among=list(known), threshold=2)
        self._check_bound(told["max_abs"])
        check_precision(precision, self._max_abs, len(sites))
        needs_all = contribution.group is not None or told["purpose"] == SELECTION
        about = {
            "keys": hash_keys(keys),
            "dealer": told["dealer"],
            "run": "" if membership is None else membership.run,
            "group": contribution.group or f"sum {contribution.number}",  # begun again, it is over the same sites
            "least": len(sites) if needs_all else self._least,
            "sites": None if membership is None else {site: membership.identities[site].hex() for site in sites},
        }
        if told["purpose"] == SUM:
            words, manifest = self._flatten(contribution, precision, about["keys"], membership)
            shape: tuple[int, ...] = words.shape
        else:
            self._selections.add(contribution.number)
            words, manifest, shape = _lay_out(contribution, precision, self._max_abs)
        terms = Terms(sum_id, str(told["purpose"]), shape, precision, **about)
        sealed = seal_for_parties(split(words, len(keys)), keys, terms, self.site, self._identity)
        meta = {"protection": Protection.SECRET_SHARES, "manifest": manifest, TERMS: terms.to_json()}
        return Message(
            str(task.meta["task"]), meta, {party: np.frombuffer(share, np.uint8) for party, share in sealed.items()}
        )

    def _take_keys(self, told: Mapping[str, Any], sum_id: SumId) -> dict[str, bytes]:
        """The parties' public keys for a sum, in which this site takes part once."""
        self._check_new(sum_id)
        shown = {
            party: check_introduction(PARTY, party, of, self._parties, sum_id.session, sum_id.number)
            for party, of in told["parties"].items()
        }
        check_fingerprint("the dealer", DEALER, bytes.fromhex(told["dealer"]), self._parties)
        n_parties = min(len({identity for identity, _ in shown.values()}), len({key for _, key in shown.values()}))
        if n_parties < max(2, len(shown)) or not set(self._parties) <= {DEALER, *shown}:
            raise AggregationError(
                f"site {self.site!r} refuses to share its term among {n_parties} compute parties: at least 2, and all "
                f"that it knows ({', '.join(name for name in self._parties if name != DEALER)})"
            )
        self._begun.add(sum_id)
        return {party: key for party, (_, key) in shown.items()}

    def _flatten(
        self, contribution: Contribution, precision: int, keys: str, membership: Membership | None
    ) -> tuple[np.ndarray, Manifest]:
        """Weight times arrays, the weight, and the checksum by which the sites know the sum."""
        n_checks = 0 if membership is None else N_CHECKS
        words, manifest = flatten(
            contribution.arrays, contribution.weight, precision=precision, max_abs=self._max_abs, n_more=n_checks
        )
        if membership is not None:
            about = describe_sum(membership.run, contribution.number, self._history, keys, manifest, precision)
            words[-n_checks:] = Checksum(membership.group_key, about).of_term(words[:-n_checks], self.site)
        return words, manifest


def _lay_out(
    contribution: Contribution, precision: int, max_abs: float
) -> tuple[np.ndarray, Manifest, tuple[int, int]]:
    """For a selection: keys, then values."""
    keys, values = read_selection(contribution.arrays)
    parts = [encode(keys, 0, KEYS, max_abs=_MAX_KEY), encode(values, precision, VALUES, max_abs=max_abs)]
    manifest = [(KEYS, list(keys.shape)), (VALUES, list(values.shape))]
    return np.concatenate([part.reshape(-1) for part in parts]), manifest, (values.shape[0], values.shape[1])
