"""One round of masked aggregation, as the coordinator runs it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Sums
from fedscgen.secure._fixed_point import decode
from fedscgen.secure._keys import KEY_LENGTH, KeyPair, add_masks, derive
from fedscgen.secure._vector import Manifest, common_manifest, n_words, unflatten
from fedscgen.secure.masked._protocol import PUBLIC_KEYS, SEALED_LENGTH, SHARES, UNMASK, from_rows, subtracts, to_rows
from fedscgen.secure.masked._shamir import SHARE_LENGTH, combine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._aggregator import Ask
    from fedscgen.secure.masked._protocol import Terms

logger = logging.getLogger(__name__)


class MaskedRound:
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
        total, manifest = self._add_up(self._contribution_messages(task, extras))
        self._unmask(total)
        values = decode(total, self.terms.precision)
        logger.info("round %d: opened a sum over %d sites", self.terms.round.number, len(self.survivors))
        return Sums(unflatten(values, manifest), float(values[-1]), len(self.survivors))

    def _collect_keys(self) -> None:
        """Have every site advertise two public keys (round 0)."""
        message = Message(PUBLIC_KEYS, {"protection": "none", **self.terms.meta()})
        for site, answer in self._ask_enough(dict.fromkeys(self.sites, message)).items():
            (self._channel_keys[site],) = _read(site, answer, "channel", 1, KEY_LENGTH)
            (self._mask_keys[site],) = _read(site, answer, "mask", 1, KEY_LENGTH)

    def _collect_shares(self) -> None:
        """Give every site the keys, and take what each has sealed for the others (round 1)."""
        sites = list(self._mask_keys)
        arrays = {
            "channel": to_rows(list(self._channel_keys.values()), KEY_LENGTH),
            "mask": to_rows(list(self._mask_keys.values()), KEY_LENGTH),
        }
        message = Message(SHARES, {"protection": "public", **self.terms.round.meta(sites=sites)}, arrays)
        for site, answer in self._ask_enough(dict.fromkeys(sites, message)).items():
            peers = [peer for peer in sites if peer != site]
            sealed = _read(site, answer, "shares", len(peers), SEALED_LENGTH)
            self._sealed[site] = dict(zip(peers, sealed, strict=True))

    def _contribution_messages(
        self, task: Message, extras: Mapping[str, Mapping[str, Any]] | None
    ) -> dict[str, Message]:
        """The task for each site that dealt shares (round 2). Its arrays are passed on, not copied."""

        def with_meta(**more: Any) -> Message:
            return Message(task.kind, {**task.meta, **self.terms.round.meta(sites=sites, **more)}, task.arrays)

        sites = list(self._sealed)
        if extras is None:
            return dict.fromkeys(sites, with_meta())
        return {site: with_meta(**extras[site]) for site in sites}

    def _add_up(self, messages: Mapping[str, Message]) -> tuple[np.ndarray, Manifest]:
        """Add the masked vectors modulo 2**64 as they come, so that two at most are held."""
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
        self.survivors = list(self._enough(messages, answers))
        manifest = common_manifest(answers)
        length = n_words(manifest) + 1
        if total is None or total.shape != (length,):
            misfits = self.survivors
        if total is None or misfits:
            raise AggregationError(
                f"site {misfits[0]!r} contributed no vector of {length} masked words: nothing was opened"
            )
        return total, manifest

    def _unmask(self, total: np.ndarray) -> None:
        """Recover the masks that are left in ``total``, and subtract them in place (round 4)."""
        dropped = [site for site in self._sealed if site not in self.survivors]
        shares = self._collect_unmasking_shares(dropped)
        seeds = {site: self._recover(site, shares, "survivors", row) for row, site in enumerate(self.survivors)}
        pairs = {site: KeyPair(self._recover(site, shares, "dropped", row)) for row, site in enumerate(dropped)}
        for site, pair in pairs.items():
            if pair.public != self._mask_keys[site]:
                raise AggregationError(
                    f"the shares of the mask key of site {site!r} give another key: nothing was opened"
                )
        masks = [(derive(seed, self.terms.round.self_context(site)), True) for site, seed in seeds.items()]
        for site, pair in pairs.items():
            for peer in self.survivors:
                key = pair.agree(self._mask_keys[peer], self.terms.round.pair_context(peer, site))
                masks.append((key, not subtracts(peer, site)))
        add_masks(total, masks)

    def _collect_unmasking_shares(self, dropped: list[str]) -> dict[str, dict[str, list[bytes]]]:
        """Ask the survivors for shares of self-masks of survivors and mask keys of the rest; by site, by kind."""
        meta = {"protection": "encrypted", **self.terms.round.meta(survivors=self.survivors, dropped=dropped)}
        messages = {}
        for site in self.survivors:
            dealt = [sealed[site] for peer, sealed in self._sealed.items() if peer != site]
            messages[site] = Message(UNMASK, meta, {"shares": to_rows(dealt, SEALED_LENGTH)})
        answers = self._ask_enough(messages)
        return {
            site: {
                "survivors": _read(site, answer, "survivors", len(self.survivors), SHARE_LENGTH),
                "dropped": _read(site, answer, "dropped", len(dropped), SHARE_LENGTH),
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

    def _ask_enough(self, messages: Mapping[str, Message]) -> dict[str, Message]:
        """Ask, and go on with the sites that answered."""
        return self._enough(messages, dict(self.ask(messages)))

    def _enough(self, messages: Mapping[str, Message], answers: Mapping[str, Message]) -> dict[str, Message]:
        """The answers in the order of the messages, if they are no fewer than the threshold."""
        present = {site: answers[site] for site in messages if site in answers}
        if len(present) < self.terms.threshold:
            (kind,) = {message.kind for message in messages.values()}
            missing = ", ".join(site for site in self.sites if site not in present)
            raise AggregationError(
                f"{len(present)} of {len(self.sites)} sites are left after {kind!r} (missing: {missing}), "
                f"fewer than the threshold of {self.terms.threshold}: nothing was opened; "
                "begin a new round when enough sites can be reached"
            )
        return present


def _read(site: str, answer: Message, name: str, n_rows: int, length: int) -> list[bytes]:
    try:
        return from_rows(answer.arrays, name, n_rows, length)
    except ValueError as error:
        raise AggregationError(f"site {site!r} answered {answer.kind!r} wrongly: {error}") from error
