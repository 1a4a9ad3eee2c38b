"""The site's half of masked aggregation.

The protocol is that of Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
figure 4, without the signatures and the consistency check of its active-adversary variant. A site goes through four
stages once in each sum: AdvertiseKeys, ShareKeys, MaskedInputCollection and Unmasking, as the figure calls them. Each
stage uses up what the one before left: a key can serve one sum only.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Contribution
from fedscgen.secure._fixed_point import check_precision
from fedscgen.secure._keys import KEY_LENGTH, KeyPair, add_masks, derive, seal, unseal
from fedscgen.secure._protection import Protection
from fedscgen.secure._selection import KEYS, VALUES, read_selection
from fedscgen.secure._vector import flatten
from fedscgen.secure.masked._protocol import (
    MASKING,
    PUBLIC_KEYS,
    SEALED_LENGTH,
    SHARES,
    UNMASK,
    Terms,
    channel_context,
    find_sum_id,
    from_rows,
    majority,
    pair_context,
    self_context,
    shares_context,
    subtracts,
    to_rows,
)
from fedscgen.secure.masked._shamir import SECRET_LENGTH, SHARE_LENGTH, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedscgen.secure._sum_id import SumId


@dataclass(frozen=True, repr=False)
class _AfterKeys:
    """What a site keeps when it has sent its public keys."""

    terms: Terms
    channel: KeyPair
    mask: KeyPair


@dataclass(frozen=True, repr=False)
class _AfterShares:
    """What a site keeps when it has sent shares of its secrets: it can mask now. Keys are by peer."""

    terms: Terms
    sites: tuple[str, ...]
    channel_keys: Mapping[str, bytes]
    pair_keys: Mapping[str, bytes]
    seed: bytes
    own_share: bytes


@dataclass(frozen=True, repr=False)
class _AfterTask:
    """What a site keeps when it has sent its masked term: no more than opens its peers' shares."""

    terms: Terms
    sites: tuple[str, ...]
    channel_keys: Mapping[str, bytes]
    own_share: bytes


_State = TypeVar("_State", _AfterKeys, _AfterShares, _AfterTask)


class MaskedContributor:
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

    Raises
    ------
    ValueError
        ``min_sites`` is below 2: a sum over one site is that site's term.
    """

    def __init__(self, site: str, *, reveal_keys: bool = False, min_sites: int = 2) -> None:
        if min_sites < 2:
            raise ValueError(f"min_sites={min_sites}: at least 2, as a sum over one site is that site's term")
        self.site = site
        self.reveal_keys = reveal_keys
        self.min_sites = min_sites
        self._state: _AfterKeys | _AfterShares | _AfterTask | None = None
        self._begun: set[SumId] = set()

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
            UNMASK: self._unmask,
        }
        if message.kind not in stages:
            raise AggregationError(f"a masked site has no answer to a message of kind {message.kind!r}")
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

    def _mask(self, contribution: Contribution, task: Message) -> Message:
        """Add this site's masks, of all sites that dealt shares (MaskedInputCollection)."""
        state = self._take_state(task, _AfterShares)
        masking, terms = task.meta[MASKING], state.terms
        sites = self._check_sites(masking["sites"], among=state.sites, threshold=terms.threshold)
        arrays, weight = self._choose_arrays(contribution, masking)
        words, manifest = flatten(arrays, weight, precision=terms.precision, max_abs=terms.max_abs)
        masks = [(state.pair_keys[peer], subtracts(self.site, peer)) for peer in sites if peer != self.site]
        own = derive(state.seed, self_context(terms.sum_id, self.site))
        add_masks(words, [*masks, (own, False)])
        self._state = _AfterTask(terms, sites, state.channel_keys, state.own_share)
        shown = "row" in masking or "selected" in masking
        protection = Protection.OPENED_BY_SITE if shown else Protection.MASKED
        meta = {"protection": protection, "manifest": manifest}
        return Message(f"masked {task.meta['task']}", meta, {"masked": words})

    def _advertise_keys(self, message: Message) -> Message:
        """Begin a sum with two fresh key pairs, one for channels and one for masks (AdvertiseKeys)."""
        terms = Terms.of(message)
        if terms.sum_id in self._begun:
            raise AggregationError(f"site {self.site!r} has taken part in sum {terms.sum_id.number}: begin a new one")
        self._begun.add(terms.sum_id)
        self._state = state = _AfterKeys(terms, KeyPair(), KeyPair())
        pairs = {"channel": state.channel, "mask": state.mask}
        arrays = {name: to_rows([pair.public], KEY_LENGTH) for name, pair in pairs.items()}
        return Message(PUBLIC_KEYS, {"protection": Protection.PUBLIC}, arrays)

    def _share_secrets(self, message: Message) -> Message:
        """Share the self-mask's seed and the mask key among the sites, sealed for each (ShareKeys)."""
        state = self._take_state(message, _AfterKeys)
        terms, listed = state.terms, message.meta[MASKING]["sites"]
        if terms.threshold < majority(len(listed)):
            raise ValueError(f"threshold={terms.threshold} of {len(listed)} sites: at least {majority(len(listed))}")
        sites = self._check_sites(listed, among=listed, threshold=terms.threshold)
        check_precision(terms.precision, terms.max_abs, len(sites))
        channel, mask = self._read_public_keys(message, sites, state)
        peers = [site for site in sites if site != self.site]
        sum_id = terms.sum_id
        channel_keys = {p: state.channel.agree(channel[p], channel_context(sum_id, self.site, p)) for p in peers}
        pair_keys = {p: state.mask.agree(mask[p], pair_context(sum_id, self.site, p)) for p in peers}
        seed = secrets.token_bytes(SECRET_LENGTH)
        shares = dict(zip(sites, _deal(seed, state.mask.secret, terms.threshold, len(sites)), strict=True))
        sealed = [seal(channel_keys[p], shares[p], shares_context(sum_id, self.site, p)) for p in peers]
        self._state = _AfterShares(terms, sites, channel_keys, pair_keys, seed, shares[self.site][:SHARE_LENGTH])
        return Message(SHARES, {"protection": Protection.ENCRYPTED}, {"shares": to_rows(sealed, SEALED_LENGTH)})

    def _unmask(self, message: Message) -> Message:
        """Reveal self-mask shares of survivors and mask key shares of the rest, never both of one (Unmasking).

        The shares that the peers dealt arrive only now, as that keeps them out of the task; nothing needs them sooner.
        """
        state = self._take_state(message, _AfterTask)
        masking, threshold = message.meta[MASKING], state.terms.threshold
        survivors = self._check_sites(masking["survivors"], among=state.sites, threshold=threshold)
        dropped = tuple(masking["dropped"])
        if sorted((*survivors, *dropped)) != sorted(state.sites):
            raise ValueError(
                f"survivors {list(survivors)} and dropped {list(dropped)} must name each of {list(state.sites)} once: "
                "a site's self-mask and its mask key are never both revealed"
            )
        dealt = self._open_shares(message, state)
        seeds = [state.own_share if site == self.site else dealt[site][:SHARE_LENGTH] for site in survivors]
        keys = [dealt[site][SHARE_LENGTH:] for site in dropped]
        arrays = {"survivors": to_rows(seeds, SHARE_LENGTH), "dropped": to_rows(keys, SHARE_LENGTH)}
        return Message(UNMASK, {"protection": Protection.SHARES}, arrays)

    @contextmanager
    def _explain_errors(self, message: Message) -> Iterator[None]:
        """Turn what is wrong with a message into an error that says whose and which."""
        try:
            yield
        except (LookupError, TypeError, ValueError) as error:
            raise AggregationError(f"site {self.site!r} refuses the message {message.kind!r}: {error}") from error

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

    def _check_sites(self, sites: Sequence[str], *, among: Sequence[str], threshold: int) -> tuple[str, ...]:
        """Check a list of sites: this one in it, each once and known, no fewer than it or the threshold demands."""
        if len(set(sites)) != len(sites) or not set(sites) <= set(among) or self.site not in sites:
            raise AggregationError(
                f"site {self.site!r} refuses the sites {list(sites)}: "
                f"they must include it, each once, and be among {list(among)}"
            )
        if len(sites) < self.min_sites:
            raise AggregationError(
                f"site {self.site!r} refuses a sum over {len(sites)} sites: its own min_sites is {self.min_sites}"
            )
        if len(sites) < threshold:
            raise AggregationError(
                f"site {self.site!r} refuses a sum over {len(sites)} sites: the threshold is {threshold}"
            )
        return tuple(sites)

    def _read_public_keys(
        self, message: Message, sites: tuple[str, ...], state: _AfterKeys
    ) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Read every site's channel and mask key; all differ, and this site's are its own."""
        channel, mask = (
            dict(zip(sites, from_rows(message.arrays, name, len(sites), KEY_LENGTH), strict=True))
            for name in ("channel", "mask")
        )
        if len({*channel.values(), *mask.values()}) != 2 * len(sites):
            raise ValueError("two of the public keys are equal: every site must advertise fresh ones")
        if channel[self.site] != state.channel.public or mask[self.site] != state.mask.public:
            raise ValueError("it lists other public keys of this site than those it advertised")
        return channel, mask

    def _open_shares(self, message: Message, state: _AfterTask) -> dict[str, bytes]:
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
