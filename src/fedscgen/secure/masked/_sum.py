"""One masked sum, as the coordinator leads it from stage to stage."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._checksum import N_CHECKS
from fedscgen.secure._identity import SIGNATURE_LENGTH
from fedscgen.secure._keys import KeyPair, add_masks, derive
from fedscgen.secure._opened import CheckedSums, OpenedSum, hash_keys
from fedscgen.secure._protection import Protection
from fedscgen.secure._vector import Manifest, common_entry, common_manifest, from_rows, n_words, to_rows
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
    bind_mask,
    pair_context,
    self_context,
    subtracts,
    write_meta,
)
from fedscgen.secure.masked._public_keys import OF_ALL, OF_NEXT, PublicKeys
from fedscgen.secure.masked._shamir import SHARE_LENGTH, combine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._aggregator import Ask, Sums
    from fedscgen.secure.masked._protocol import Terms

logger = logging.getLogger(__name__)


class LostKeysError(AggregationError):
    """A site has no keys for the sum, as it was started after it had made them: the sum needs new ones."""


class MaskedSum:
    """Leads the sites through the stages of Bonawitz et al. 2017, figure 4, to the opened sum of one task.

    Each stage goes on with the sites that answered the one before. ``survivors`` are those in the sum. Where none may
    be missing, the sum is open as soon as all have answered the task.

    Parameters
    ----------
    ask, sites, terms
        Whom to ask, and on which terms.
    keys
        What the sites have advertised for this sum with their answers to the one before.
    """

    def __init__(self, ask: Ask, sites: Sequence[str], terms: Terms, keys: PublicKeys | None = None) -> None:
        self.ask = ask
        self.sites = list(sites)
        self.terms = terms
        self.survivors: list[str] = []
        self.following: dict[str, PublicKeys] = {}  # what a site has advertised for the sum after it
        self._keys = PublicKeys({}, {}, {}) if keys is None else keys
        self._told = ""  # on which terms all survivors take part
        self._sealed: dict[str, dict[str, bytes]] = {}  # by the site that dealt, by the site it is for

    def run(self, task: Message, extras: Mapping[str, Mapping[str, Any]] | None = None) -> Sums:
        """Open the sum of what the sites contribute to ``task``; ``extras`` tell a site more about its part.

        Raises
        ------
        AggregationError
            A stage was answered by fewer sites than the threshold, or by one with something that doesn't fit.
        """
        self._keys = self._collect_keys()
        self._collect_shares()
        sites = list(self._sealed)
        if extras is None:
            messages = dict.fromkeys(sites, self._address(task, sites))
        else:
            messages = {site: self._address(task, sites, **extras[site]) for site in sites}
        total, manifest = self._add_up(messages)
        self._unmask(total, self._confirm())
        return self._decode(total, manifest)

    def run_whole(self, task: Message, following: Terms) -> Sums:
        """Open the sum of what all sites contribute, of whom none may be missing.

        Parameters
        ----------
        task
            What is asked.
        following
            Of the sum after it, for which the sites make keys already.

        Raises
        ------
        LostKeysError
            A site has lost the keys that it has advertised.
        AggregationError
            A site is missing, or has answered with something that doesn't fit.
        """
        if not self._keys.sites:
            self._keys = self._collect_keys()
        asked = self._address(task, self.sites, **{NEXT: following.to_json()})
        message = replace(asked, arrays={**task.arrays, **self._keys.to_arrays(OF_ALL)})
        return self._decode(*self._add_up(dict.fromkeys(self.sites, message)))

    def _address(self, task: Message, sites: list[str], **entries: Any) -> Message:
        """The task as a message of this sum, over these sites. Its arrays are passed on, not copied."""
        return Message(task.kind, {**task.meta, **write_meta(self.terms.sum_id, sites=sites, **entries)}, task.arrays)

    def _decode(self, total: np.ndarray, manifest: Manifest) -> CheckedSums:
        keys = hash_keys(self._keys.channel, self._keys.mask)
        opened = OpenedSum(total, manifest, self.terms.precision, self.terms.sum_id, tuple(self.survivors), keys)
        logger.info("opened sum %d, over %d sites", self.terms.sum_id.number, len(self.survivors))
        return CheckedSums(**vars(opened.decode()), opened=opened)

    def _collect_keys(self) -> PublicKeys:
        """Have every site advertise two public keys (AdvertiseKeys)."""
        meta = {"protection": Protection.NONE, MASKING: self.terms.to_json()}
        answers = self._ask_sites(dict.fromkeys(self.sites, Message(PUBLIC_KEYS, meta)))
        return PublicKeys.join(read_keys(site, answer) for site, answer in answers.items())

    def _collect_shares(self) -> None:
        """Give every site the keys, and take what each has sealed for the others (ShareKeys)."""
        sites = self._keys.sites
        meta = {"protection": Protection.PUBLIC, **write_meta(self.terms.sum_id, sites=sites)}
        message = Message(SHARES, meta, self._keys.to_arrays())
        for site, answer in self._ask_sites(dict.fromkeys(sites, message)).items():
            peers = [peer for peer in sites if peer != site]
            sealed = _read_rows(site, answer, "shares", len(peers), SEALED_LENGTH)
            self._sealed[site] = dict(zip(peers, sealed, strict=True))

    def _add_up(self, messages: Mapping[str, Message]) -> tuple[np.ndarray, Manifest]:
        """Add the masked vectors modulo 2**64 as they come (MaskedInputCollection): at most two are held at a time."""
        total, answers, misfits = None, {}, []
        for site, answer in self.ask(messages):
            words = answer.arrays.get("masked")
            answers[site] = Message(answer.kind, answer.meta)
            if f"{OF_NEXT}mask" in answer.arrays:
                self.following[site] = read_keys(site, answer, OF_NEXT)
            if words is None or words.dtype != np.uint64 or (total is not None and words.shape != total.shape):
                misfits.append(site)
            elif total is None:
                total = words.copy()
            else:
                np.add(total, words, out=total)
        self.survivors = list(self._check_enough(messages, answers))
        if any(answer.meta.get(LOST) for answer in answers.values()):
            raise LostKeysError("a site has lost its keys: nothing was opened")
        manifest = common_manifest(answers)
        self._told = str(common_entry(answers, TOLD))
        length = n_words(manifest) + 1 + (N_CHECKS if self._has_met else 0)
        if total is None or total.shape != (length,):
            misfits = self.survivors
        if total is None or misfits:
            raise AggregationError(
                f"site {misfits[0]!r} contributed no vector of {length} masked words: nothing was opened"
            )
        return total, manifest

    @property
    def _has_met(self) -> bool:
        """Whether the sites know each other, and sign and check what they do."""
        return bool(self._keys.signatures)

    def _confirm(self) -> dict[str, bytes]:
        """Have the sites sign who is in the sum, if one may be missing (ConsistencyCheck); signatures by site."""
        if not self._has_met or self.terms.threshold == len(self._sealed):
            return {}
        masking = write_meta(self.terms.sum_id, survivors=self.survivors)
        message = Message(CONFIRM, {"protection": Protection.PUBLIC, **masking})
        answers = self._ask_sites(dict.fromkeys(self.survivors, message))
        return {site: _read_rows(site, answer, "signature", 1, SIGNATURE_LENGTH)[0] for site, answer in answers.items()}

    def _unmask(self, total: np.ndarray, confirmed: Mapping[str, bytes]) -> None:
        """Recover the masks that are left in ``total``, and subtract them in place (Unmasking)."""
        dropped = [site for site in self._sealed if site not in self.survivors]
        shares = self._collect_unmasking_shares(dropped, confirmed)
        seeds = {site: self._recover(site, shares, "survivors", row) for row, site in enumerate(self.survivors)}
        pairs = {site: KeyPair(self._recover(site, shares, "dropped", row)) for row, site in enumerate(dropped)}
        for site, pair in pairs.items():
            if pair.public != self._keys.mask[site]:
                raise AggregationError(
                    f"the shares of the mask key of site {site!r} give another key: nothing was opened"
                )
        masks = [(derive(seed, self_context(self.terms.sum_id, site)), True) for site, seed in seeds.items()]
        for site, pair in pairs.items():
            for peer in self.survivors:
                key = pair.agree(self._keys.mask[peer], pair_context(self.terms.sum_id, peer, site))
                masks.append((bind_mask(key, self._told), not subtracts(peer, site)))
        add_masks(total, masks)

    def _collect_unmasking_shares(
        self, dropped: list[str], confirmed: Mapping[str, bytes]
    ) -> dict[str, dict[str, list[bytes]]]:
        """Ask the survivors for shares of self-masks of survivors and mask keys of the rest; by site, by kind."""
        masking = write_meta(self.terms.sum_id, survivors=self.survivors, dropped=dropped, confirmed=list(confirmed))
        meta = {"protection": Protection.ENCRYPTED, **masking}
        messages = {}
        confirmations = {"confirmations": to_rows(list(confirmed.values()), SIGNATURE_LENGTH)} if confirmed else {}
        for site in self.survivors:
            dealt = [sealed[site] for peer, sealed in self._sealed.items() if peer != site]
            messages[site] = Message(UNMASK, meta, {"shares": to_rows(dealt, SEALED_LENGTH), **confirmations})
        answers = self._ask_sites(messages)
        return {
            site: {
                "survivors": _read_rows(site, answer, "survivors", len(self.survivors), SHARE_LENGTH),
                "dropped": _read_rows(site, answer, "dropped", len(dropped), SHARE_LENGTH),
            }
            for site, answer in answers.items()
        }

    def _recover(self, site: str, shares: Mapping[str, Mapping[str, list[bytes]]], kind: str, row: int) -> bytes:
        """Recover a site's secret from the shares of it that have come back."""
        dealt_to = enumerate(self._keys.mask, start=1)
        points = {point: shares[holder][kind][row] for point, holder in dealt_to if holder in shares}
        try:
            return combine(points)
        except ValueError as error:
            raise AggregationError(
                f"the masks of site {site!r} can't be recovered: {error}; nothing was opened"
            ) from error

    def _ask_sites(self, messages: Mapping[str, Message]) -> dict[str, Message]:
        """Ask, and go on with the sites that answered."""
        return self._check_enough(messages, dict(self.ask(messages)))

    def _check_enough(self, messages: Mapping[str, Message], answers: Mapping[str, Message]) -> dict[str, Message]:
        """Put the answers in the order of the messages, and refuse fewer than the threshold."""
        present = {site: answers[site] for site in messages if site in answers}
        if len(present) < self.terms.threshold:
            (kind,) = {message.kind for message in messages.values()}
            missing = ", ".join(site for site in self.sites if site not in present)
            raise AggregationError(
                f"{len(present)} of {len(self.sites)} sites are left after {kind!r} (missing: {missing}), "
                f"fewer than the threshold of {self.terms.threshold}: nothing was opened; "
                "begin a new sum when enough sites can be reached"
            )
        return present


def read_keys(site: str, answer: Message, prefix: str = "") -> PublicKeys:
    """The public keys in a site's answer."""
    try:
        return PublicKeys.from_arrays(answer.arrays, [site], prefix)
    except ValueError as error:
        raise AggregationError(f"site {site!r} answered {answer.kind!r} wrongly: {error}") from error


def _read_rows(site: str, answer: Message, name: str, n_rows: int, length: int) -> list[bytes]:
    try:
        return from_rows(answer.arrays, name, n_rows, length)
    except ValueError as error:
        raise AggregationError(f"site {site!r} answered {answer.kind!r} wrongly: {error}") from error
