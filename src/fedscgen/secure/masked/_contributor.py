"""The site's half of masked aggregation.

The protocol is that of Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
figure 4, with the signatures and the consistency check of its active-adversary variant once the sites of a run have
met. A site goes through its stages once in each sum: AdvertiseKeys, ShareKeys, MaskedInputCollection, ConsistencyCheck
and Unmasking, as the figure calls them. Each stage uses up what the one before left: a key can serve one sum only.

Where all sites must stay in the sum, nobody's masks are ever recovered. Then AdvertiseKeys and MaskedInputCollection
are the whole of it, as the masks of pairs cancel in the sum of all, and in no other; and the keys of the sum that comes
next are advertised with the masked term.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Contribution, Sums
from fedscgen.secure._checksum import N_CHECKS, Checksum
from fedscgen.secure._fixed_point import MAX_ABS, check_precision
from fedscgen.secure._identity import SIGNATURE_LENGTH
from fedscgen.secure._keys import KeyPair, add_masks, derive, seal, unseal
from fedscgen.secure._member import RunMember
from fedscgen.secure._membership import claim_keys
from fedscgen.secure._opened import describe_sum, hash_description, hash_keys
from fedscgen.secure._protection import Protection
from fedscgen.secure._selection import KEYS, VALUES, read_selection
from fedscgen.secure._vector import flatten, from_rows, to_rows
from fedscgen.secure.masked._protocol import (
    CONFIRM,
    LOST,
    MASKING,
    NEXT,
    PUBLIC_KEYS,
    SEALED_LENGTH,
    SHARES,
    TOLD,
    UNMASK,
    Terms,
    bind_mask,
    channel_context,
    find_sum_id,
    majority,
    pair_context,
    self_context,
    shares_context,
    subtracts,
)
from fedscgen.secure.masked._public_keys import OF_ALL, OF_NEXT, PublicKeys
from fedscgen.secure.masked._shamir import SECRET_LENGTH, SHARE_LENGTH, split
from fedscgen.secure.masked._states import AfterKeys, AfterShares, AfterTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedscgen._types import NamedArrays
    from fedscgen.secure._vector import Manifest


_State = TypeVar("_State", AfterKeys, AfterShares, AfterTask)


class MaskedContributor(RunMember):
    """Masks a site's term: the coordinator can read nothing but the sum.

    Parameters
    ----------
    site
        The site's name, as the coordinator calls it.
    reveal_keys
        Take part in selections. They show the coordinator this site's keys (those that are compared, no cryptographic
        ones), and its values where its key is largest.
    min_sites
        Fewest sites in any sum that this site contributes to, whatever the coordinator's threshold.
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
        reveal_keys: bool = False,
        min_sites: int = 2,
        max_abs: float = MAX_ABS,
    ) -> None:
        super().__init__(site, min_sites, max_abs)
        self.reveal_keys = reveal_keys
        self._state: AfterKeys | AfterShares | AfterTask | None = None

    def answer(self, message: Message) -> Message:
        """Advertise keys, share secrets, or help to unmask the sum.

        Raises
        ------
        AggregationError
            The message is malformed, out of order or replayed, or asks for a sum over fewer than ``min_sites`` sites.
        """
        stages: dict[str, Callable[[Message], Message]] = {
            PUBLIC_KEYS: self._advertise_keys,
            SHARES: self._share_secrets,
            CONFIRM: self._confirm,
            UNMASK: self._unmask,
        }
        if message.kind not in stages:
            return super().answer(message)
        with self._explain_errors(message):
            return stages[message.kind](message)

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Encode weight times arrays, and the weight, as one vector of words, and mask it.

        The answer's ``meta`` lists names and shapes, which are public. Its array ``masked`` is uniform noise
        without the keys, which the other sites hold shares of.

        Raises
        ------
        AggregationError
            The sum's keys have been used, a value can't be encoded, the task belongs to no masked sum, or fewer than
            ``min_sites`` sites are left in it.
        """
        if MASKING not in task.meta:
            raise AggregationError(f"site {self.site!r} contributes masked only: run the task with a MaskedAggregator")
        with self._explain_errors(task):
            return self._mask(contribution, task)

    def prepare(self, settings: Message) -> NamedArrays:
        """Public keys for the first sum, if the coordinator has said on which terms it will be."""
        if MASKING not in settings.meta:
            return {}
        with self._explain_errors(settings):
            return self._advertise(Terms.of(settings.meta[MASKING]), OF_NEXT)

    def find_sites(self, task: Message) -> Sequence[str]:
        """Those that have dealt shares; in a sum that needs all of them, whoever else is in it makes noise of it."""
        sites: Sequence[str] = task.meta.get(MASKING, {}).get("sites", ())
        return sites

    def read_sum(self, message: Message, number: int) -> Sums:
        """What was opened, if it is the sites' sum. Of a selection, which shows what it chooses, it is believed."""
        if self.reveal_keys and set(message.arrays) == {KEYS, VALUES}:
            return Sums.from_message(message)
        return super().read_sum(message, number)

    def _mask(self, contribution: Contribution, task: Message) -> Message:
        """Add this site's masks, of all sites in the sum (MaskedInputCollection)."""
        masking, brings_keys = task.meta[MASKING], f"{OF_ALL}mask" in task.arrays
        if brings_keys and find_sum_id(task) not in self._begun:
            return Message(f"masked {task.meta['task']}", {"protection": Protection.PUBLIC, LOST: True})
        if brings_keys:
            state = self._meet_all(self._take_state(task, AfterKeys), task)
        else:
            state = self._take_state(task, AfterShares)
        terms = state.terms
        sites = self._check_sites(masking["sites"], among=state.sites, threshold=terms.threshold)
        group = contribution.group or f"sum {contribution.number}"  # a sum that is begun again is over the same sites
        self._check_group(group, sites, terms.threshold, whole=contribution.group is not None)
        arrays, weight = self._choose_arrays(contribution, masking)
        words, manifest, told = self._encode(arrays, weight, contribution.number, state)
        masks = [
            (bind_mask(state.pair_keys[peer], told), subtracts(self.site, peer)) for peer in sites if peer != self.site
        ]
        may_be_open = group if contribution.number else None
        if state.seed is not None:
            masks.append((derive(state.seed, self_context(terms.sum_id, self.site)), False))
            self._state = AfterTask(terms, sites, state.channel_keys, state.own_share, may_be_open)
        elif may_be_open is not None:
            self._groups[may_be_open] = sites
        add_masks(words, masks)
        shown = "row" in masking or "selected" in masking
        protection = Protection.OPENED_BY_SITE if shown else Protection.MASKED
        meta = {"protection": protection, "manifest": manifest, TOLD: told}
        following = self._advertise(Terms.of(masking[NEXT]), OF_NEXT) if brings_keys and NEXT in masking else {}
        return Message(f"masked {task.meta['task']}", meta, {"masked": words, **following})

    def _encode(
        self, arrays: Mapping[str, np.ndarray], weight: float, number: int, state: AfterShares
    ) -> tuple[np.ndarray, Manifest, str]:
        """The term in words, with its checksum among sites that have met; and what its masks are bound to."""
        terms, membership = state.terms, self._find_membership()
        n_checks = 0 if membership is None else N_CHECKS
        words, manifest = flatten(arrays, weight, precision=terms.precision, max_abs=terms.max_abs, n_more=n_checks)
        run = "" if membership is None else membership.run
        about = describe_sum(run, number, self._history, state.keys, manifest, terms.precision)
        if membership is not None:
            words[-n_checks:] = Checksum(membership.group_key, about).of_term(words[:-n_checks], self.site)
        return words, manifest, hash_description(about)

    def _advertise_keys(self, message: Message) -> Message:
        """Begin a sum with two fresh key pairs, one for channels and one for masks (AdvertiseKeys)."""
        arrays = self._advertise(Terms.of(message.meta[MASKING]))
        return Message(PUBLIC_KEYS, {"protection": Protection.PUBLIC}, arrays)

    def _advertise(self, terms: Terms, prefix: str = "") -> NamedArrays:
        self._check_new(terms.sum_id)
        self._begun.add(terms.sum_id)
        self._check_bound(terms.max_abs)
        self._state = state = AfterKeys(terms, KeyPair(), KeyPair())
        channel, mask, run, signatures = state.channel.public, state.mask.public, self._run, {}
        if run:
            claim = claim_keys(run, terms.sum_id, terms.rule, self.site, channel, mask)
            signatures[self.site] = self._identity.sign(claim)
        return PublicKeys({self.site: channel}, {self.site: mask}, signatures).to_arrays(prefix)

    def _meet_all(self, state: AfterKeys, task: Message) -> AfterShares:
        """Take the keys of sites none of which may be missing, so that no shares of them are dealt."""
        listed, threshold = task.meta[MASKING]["sites"], state.terms.threshold
        if threshold != len(listed) or not state.terms.whole:
            raise ValueError(f"threshold={threshold} of {len(listed)} sites: who may be missing first deals shares")
        return self._agree(state, listed, task, OF_ALL)

    def _agree(self, state: AfterKeys, listed: Sequence[str], message: Message, prefix: str = "") -> AfterShares:
        """Agree on keys with each of the other sites."""
        terms = state.terms
        sites = self._check_sites(listed, among=listed, threshold=terms.threshold)
        check_precision(terms.precision, terms.max_abs, len(sites))
        keys = self._read_public_keys(message, sites, state, prefix)
        sum_id, peers = terms.sum_id, [site for site in sites if site != self.site]
        channels = {p: state.channel.agree(keys.channel[p], channel_context(sum_id, self.site, p)) for p in peers}
        pairs = {p: state.mask.agree(keys.mask[p], pair_context(sum_id, self.site, p)) for p in peers}
        return AfterShares(terms, sites, channels, pairs, hash_keys(keys.channel, keys.mask))

    def _share_secrets(self, message: Message) -> Message:
        """Share the self-mask's seed and the mask key among the sites, sealed for each (ShareKeys)."""
        state = self._take_state(message, AfterKeys)
        terms, listed = state.terms, message.meta[MASKING]["sites"]
        if terms.whole:
            raise ValueError("no site may be missing from this sum: no shares of its keys are dealt")
        if terms.threshold < majority(len(listed)):
            raise ValueError(f"threshold={terms.threshold} of {len(listed)} sites: at least {majority(len(listed))}")
        agreed = self._agree(state, listed, message)
        sites, sum_id, seed = agreed.sites, terms.sum_id, secrets.token_bytes(SECRET_LENGTH)
        shares = dict(zip(sites, _deal(seed, state.mask.secret, terms.threshold, len(sites)), strict=True))
        sealed = [seal(key, shares[p], shares_context(sum_id, self.site, p)) for p, key in agreed.channel_keys.items()]
        self._state = replace(agreed, seed=seed, own_share=shares[self.site][:SHARE_LENGTH])
        return Message(SHARES, {"protection": Protection.ENCRYPTED}, {"shares": to_rows(sealed, SEALED_LENGTH)})

    def _unmask(self, message: Message) -> Message:
        """Reveal self-mask shares of survivors and mask key shares of the rest, never both of one (Unmasking).

        The shares that the peers dealt arrive only now, as that keeps them out of the task; nothing needs them sooner.
        """
        state = self._take_state(message, AfterTask)
        masking, threshold = message.meta[MASKING], state.terms.threshold
        survivors = self._check_sites(masking["survivors"], among=state.sites, threshold=threshold)
        membership = self._find_membership()
        if membership is not None and threshold < len(state.sites):
            signers = masking["confirmed"]
            signatures = from_rows(message.arrays, "confirmations", len(signers), SIGNATURE_LENGTH)
            membership.check_confirmed(
                state.terms.sum_id, signers, signatures, state.confirmed, survivors, max(threshold, self._least)
            )
        dropped = tuple(masking["dropped"])
        if sorted((*survivors, *dropped)) != sorted(state.sites):
            raise ValueError(
                f"survivors {list(survivors)} and dropped {list(dropped)} must name each of {list(state.sites)} once: "
                "a site's self-mask and its mask key are never both revealed"
            )
        dealt = self._open_shares(message, state)
        if state.group is not None:
            self._groups[state.group] = state.sites
        seeds = [state.own_share if site == self.site else dealt[site][:SHARE_LENGTH] for site in survivors]
        keys = [dealt[site][SHARE_LENGTH:] for site in dropped]
        arrays = {"survivors": to_rows(seeds, SHARE_LENGTH), "dropped": to_rows(keys, SHARE_LENGTH)}
        return Message(UNMASK, {"protection": Protection.SHARES}, arrays)

    def _confirm(self, message: Message) -> Message:
        """Sign the list of the sites that are in the sum (ConsistencyCheck)."""
        state, membership = self._take_state(message, AfterTask), self._find_membership()
        if membership is None or state.confirmed is not None:
            raise ValueError("nothing is to be confirmed")
        listed = message.meta[MASKING]["survivors"]
        survivors = self._check_sites(listed, among=state.sites, threshold=state.terms.threshold)
        signature = self._identity.sign(membership.claim_survivors(state.terms.sum_id, survivors))
        self._state = replace(state, confirmed=survivors)
        return Message(
            CONFIRM, {"protection": Protection.PUBLIC}, {"signature": to_rows([signature], SIGNATURE_LENGTH)}
        )

    def _take_state(self, message: Message, kind: type[_State]) -> _State:
        """Take what the stage before left. It is gone then: whatever the message is, no key serves a second one."""
        state, sum_id = self._state, find_sum_id(message)
        if not isinstance(state, kind) or state.terms.sum_id != sum_id:
            raise AggregationError(
                f"site {self.site!r} has no keys for {message.kind!r} in sum {sum_id.number}: "
                "a sum's stages come in order and once; begin a new sum"
            )
        self._state = None
        return state

    def _read_public_keys(self, message: Message, sites: tuple[str, ...], state: AfterKeys, prefix: str) -> PublicKeys:
        """Read every site's channel and mask key; all differ, and this site's are its own."""
        membership = self._find_membership()
        keys = PublicKeys.from_arrays(message.arrays, sites, prefix, signed=membership is not None)
        if len({*keys.channel.values(), *keys.mask.values()}) != 2 * len(sites):
            raise ValueError("two of the public keys are equal: every site must advertise fresh ones")
        if keys.channel[self.site] != state.channel.public or keys.mask[self.site] != state.mask.public:
            raise ValueError("it lists other public keys of this site than those it advertised")
        if membership is not None:
            terms = state.terms
            membership.check_keys(terms.sum_id, terms.rule, keys.signatures, keys.channel, keys.mask)
        return keys

    def _open_shares(self, message: Message, state: AfterTask) -> dict[str, bytes]:
        """Decrypt what each peer dealt to this site."""
        peers = [site for site in state.sites if site != self.site]
        dealt = {}
        for peer, sealed in zip(peers, from_rows(message.arrays, "shares", len(peers), SEALED_LENGTH), strict=True):
            try:
                context = shares_context(state.terms.sum_id, peer, self.site)
                dealt[peer] = unseal(state.channel_keys[peer], sealed, context)
            except ValueError as error:
                raise ValueError(f"the share from site {peer!r} was {error}") from error
        return dealt

    def _choose_arrays(
        self, contribution: Contribution, masking: Mapping[str, Any]
    ) -> tuple[Mapping[str, np.ndarray], float]:
        """The term itself or, in the two sums of a selection, what those need of it."""
        if "row" not in masking and "selected" not in masking:
            return contribution.arrays, contribution.weight
        if not self.reveal_keys:
            raise AggregationError(
                f"site {self.site!r} does not show its keys: do without a selection, "
                "or agree to it with MaskedContributor(..., reveal_keys=True)"
            )
        keys, values = read_selection(contribution.arrays)
        if "selected" in masking:
            selected = np.asarray(masking["selected"], dtype=bool)
            return {VALUES: np.where(selected[:, np.newaxis], values, 0.0)}, 1.0
        placed = np.zeros((int(masking["n_rows"]), len(keys)))  # (S, K), only this site's row filled
        placed[int(masking["row"])] = keys
        return {KEYS: placed}, 1.0


def _deal(seed: bytes, key: bytes, threshold: int, n_sites: int) -> list[bytes]:
    """Split both secrets, and give each site its shares, one after the other."""
    pairs = zip(split(seed, threshold, n_sites), split(key, threshold, n_sites), strict=True)
    return [seed_share + key_share for seed_share, key_share in pairs]
