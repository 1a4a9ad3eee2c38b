"""One masked sum, as the coordinator leads it from stage to stage."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._checksum import N_CHECKS
from fedscgen.secure._identity import SIGNATURE_LENGTH
from fedscgen.secure._keys import KEY_LENGTH, KeyPair, add_masks, derive
from fedscgen.secure._opened import CheckedSums, OpenedSum, hash_keys
from fedscgen.secure._protection import Protection
from fedscgen.secure._vector import Manifest, common_entry, common_manifest, from_rows, n_words, to_rows
from fedscgen.secure.masked._protocol import (
    CONFIRM,
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
from fedscgen.secure.masked._shamir import SHARE_LENGTH, combine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._aggregator import Ask, Sums
    from fedscgen.secure.masked._protocol import Terms

logger = logging.getLogger(__name__)


class MaskedSum:
    """Leads the sites through the stages of Bonawitz et al. 2017, figure 4, to the opened sum of one task.

    Each stage goes on with the sites that answered the one before. ``survivors`` are those in the sum.
    """

    def __init__(self, ask: Ask, sites: Sequence[str], terms: Terms) -> None:
        self.ask = ask
        self.sites = list(sites)
        self.terms = terms
        self.survivors: list[str] = []
        self._channel_keys: dict[str, bytes] = {}
        self._mask_keys: dict[str, bytes] = {}
        self._told = ""  # on which terms all survivors take part
        self._signatures: dict[str, bytes] = {}  # none where the sites haven't met
        self._sealed: dict[str, dict[str, bytes]] = {}  # by the site that dealt, by the site it is for

    def run(self, task: Message, extras: Mapping[str, Mapping[str, Any]] | None = None) -> Sums:
        """Open the sum of what the sites contribute to ``task``; ``extras`` tell a site more about its part.

        Raises
        ------
        AggregationError
            A stage was answered by fewer sites than the threshold, or by one with something that doesn't fit.
        """
        self._collect_keys()
        self._collect_shares()
        total, manifest = self._add_up(self._address_task(task, extras))
        self._unmask(total, self._confirm())
        keys = hash_keys(self._channel_keys, self._mask_keys)
        opened = OpenedSum(total, manifest, self.terms.precision, self.terms.sum_id, tuple(self.survivors), keys)
        logger.info("opened sum %d, over %d sites", self.terms.sum_id.number, len(self.survivors))
        return CheckedSums(**vars(opened.decode()), opened=opened)

    def _collect_keys(self) -> None:
        """Have every site advertise two public keys (AdvertiseKeys)."""
        message = Message(PUBLIC_KEYS, {"protection": Protection.NONE, **self.terms.to_meta()})
        for site, answer in self._ask_sites(dict.fromkeys(self.sites, message)).items():
            (self._channel_keys[site],) = _read_rows(site, answer, "channel", 1, KEY_LENGTH)
            (self._mask_keys[site],) = _read_rows(site, answer, "mask", 1, KEY_LENGTH)
            if "signature" in answer.arrays:
                (self._signatures[site],) = _read_rows(site, answer, "signature", 1, SIGNATURE_LENGTH)

    def _collect_shares(self) -> None:
        """Give every site the keys, and take what each has sealed for the others (ShareKeys)."""
        sites = list(self._mask_keys)
        arrays = {
            "channel": to_rows(list(self._channel_keys.values()), KEY_LENGTH),
            "mask": to_rows(list(self._mask_keys.values()), KEY_LENGTH),
        }
        if self._signatures:
            signatures = [self._signatures.get(site, bytes(SIGNATURE_LENGTH)) for site in sites]
            arrays["signature"] = to_rows(signatures, SIGNATURE_LENGTH)
        meta = {"protection": Protection.PUBLIC, **write_meta(self.terms.sum_id, sites=sites)}
        message = Message(SHARES, meta, arrays)
        for site, answer in self._ask_sites(dict.fromkeys(sites, message)).items():
            peers = [peer for peer in sites if peer != site]
            sealed = _read_rows(site, answer, "shares", len(peers), SEALED_LENGTH)
            self._sealed[site] = dict(zip(peers, sealed, strict=True))

    def _address_task(self, task: Message, extras: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Message]:
        """Make the task's message for each site that dealt shares. Its arrays are passed on, not copied."""

        def address(**more: Any) -> Message:
            meta = write_meta(self.terms.sum_id, sites=sites, **more)
            return Message(task.kind, {**task.meta, **meta}, task.arrays)

        sites = list(self._sealed)
        if extras is None:
            return dict.fromkeys(sites, address())
        return {site: address(**extras[site]) for site in sites}

    def _add_up(self, messages: Mapping[str, Message]) -> tuple[np.ndarray, Manifest]:
        """Add the masked vectors modulo 2**64 as they come (MaskedInputCollection): at most two are held at a time."""
        total, answers, misfits = None, {}, []
        for site, answer in self.ask(messages):
            words = answer.arrays.get("masked")
            answers[site] = Message(answer.kind, answer.meta)
            if words is None or words.dtype != np.uint64 or (total is not None and words.shape != total.shape):
                misfits.append(site)
            elif total is None:
                total = words.copy()
            else:
                np.add(total, words, out=total)
        self.survivors = list(self._check_enough(messages, answers))
        manifest = common_manifest(answers)
        self._told = str(common_entry(answers, TOLD))
        length = n_words(manifest) + 1 + (N_CHECKS if self._signatures else 0)
        if total is None or total.shape != (length,):
            misfits = self.survivors
        if total is None or misfits:
            raise AggregationError(
                f"site {misfits[0]!r} contributed no vector of {length} masked words: nothing was opened"
            )
        return total, manifest

    def _confirm(self) -> dict[str, bytes]:
        """Have the sites sign who is in the sum, if one may be missing (ConsistencyCheck); signatures by site."""
        if not self._signatures or self.terms.threshold == len(self._sealed):
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
            if pair.public != self._mask_keys[site]:
                raise AggregationError(
                    f"the shares of the mask key of site {site!r} give another key: nothing was opened"
                )
        masks = [(derive(seed, self_context(self.terms.sum_id, site)), True) for site, seed in seeds.items()]
        for site, pair in pairs.items():
            for peer in self.survivors:
                key = pair.agree(self._mask_keys[peer], pair_context(self.terms.sum_id, peer, site))
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
        dealt_to = enumerate(self._mask_keys, start=1)
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


def _read_rows(site: str, answer: Message, name: str, n_rows: int, length: int) -> list[bytes]:
    try:
        return from_rows(answer.arrays, name, n_rows, length)
    except ValueError as error:
        raise AggregationError(f"site {site!r} answered {answer.kind!r} wrongly: {error}") from error
