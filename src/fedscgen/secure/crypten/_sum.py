"""One sum over secret shares, as the coordinator leads it: from the sites' shares to what the parties open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._opened import OpenedSum
from fedscgen.secure._vector import Manifest, common_entry, common_manifest
from fedscgen.secure.crypten._dealer import DEALER, ask_for_numbers
from fedscgen.secure.crypten._terms import PARTIES, TERMS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from fedscgen.secure._aggregator import Ask
    from fedscgen.secure._sum_id import SumId
    from fedscgen.secure.crypten._dealer import Needs
    from fedscgen.secure.crypten._processes import Processes

logger = logging.getLogger(__name__)


class CryptenSum:
    """Collects the sites' shares, hands them to the compute parties, and has these open the result.

    Parameters
    ----------
    processes
        The parties and their dealer.
    sum_id
        Name of the sum, which no other has.
    precision, max_abs
        How the sites encode their terms.
    purpose
        What is opened: ``SUM`` or ``SELECTION``.
    """

    def __init__(self, processes: Processes, sum_id: SumId, *, precision: int, max_abs: float, purpose: str) -> None:
        self._processes = processes
        self._sum_id = sum_id
        self._precision = precision
        self._max_abs = max_abs
        self._purpose = purpose
        self._shown: dict[str, Mapping[str, str]] = {}
        self._terms: Mapping[str, Any] = {}

    def collect(
        self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool
    ) -> tuple[dict[str, Message], Manifest]:
        """Have the sites perform the task and share what comes of it; its arrays are passed on, not copied."""
        if len(set(sites)) != len(sites):
            raise AggregationError(f"sites {list(sites)} must differ by name")
        advertised = self._processes.ask(dict.fromkeys(self._processes.parties, self._write("advertise")), "advertised")
        self._shown = {party: advertised[party].meta["shown"] for party in self._processes.parties}
        told = {
            **self._sum_id.to_meta(),
            "purpose": self._purpose,
            "precision": self._precision,
            "max_abs": self._max_abs,
            "sites": list(sites),
            "parties": self._shown,
            "dealer": self._processes.identities[DEALER].hex(),
        }
        message = Message(task.kind, {**task.meta, PARTIES: told}, task.arrays)
        present = dict(ask(dict.fromkeys(sites, message)))
        answers = {site: present[site] for site in sites if site in present}
        missing = ", ".join(site for site in sites if site not in present)
        least = max(2, len(sites)) if require_all else 2  # a sum over one site is that site's term
        if len(answers) < least:
            raise AggregationError(
                f"{len(answers)} of {len(sites)} sites contributed (missing: {missing or 'none'}), fewer than {least}: "
                "nothing was opened; begin again when enough sites can be reached"
            )
        if missing:
            logger.warning("sum over %d of %d sites; missing: %s", len(answers), len(sites), missing)
        manifest = common_manifest(answers)
        self._terms = common_entry(answers, TERMS)
        return answers, manifest

    def share(self, answers: Mapping[str, Message]) -> None:
        """Hand every party its sealed shares, site by site."""
        parties = self._processes.parties
        self._processes.ask(dict.fromkeys(parties, self._write("begin", terms=self._terms)), "begun")
        for site, answer in answers.items():
            if set(answer.arrays) != set(parties):
                raise AggregationError(f"site {site!r} did not send one share per compute party: nothing was opened")
            shares = {party: self._write("share", answer.arrays[party], site=site) for party in parties}
            self._processes.ask(shares, "held")

    def open(self, needs: Needs | None = None) -> np.ndarray:
        """Have the parties put the result together; they need dealt numbers to compare and multiply."""
        parties = self._processes.parties
        messages = dict.fromkeys(parties, self._write("open"))
        if needs is not None:
            keys = {party: shown["channel"] for party, shown in self._shown.items()}
            request = ask_for_numbers(self._terms, needs, keys)
            dealt = self._processes.ask({DEALER: request}, "dealt")[DEALER].arrays
            messages = {party: self._write("open", dealt[party]) for party in parties}
        try:
            return self._processes.ask(messages, "opened")[parties[0]].arrays["words"]
        except AggregationError:
            self._processes.stop()  # a party that didn't refuse still waits for those that did
            raise

    def describe(self, words: np.ndarray, manifest: Manifest, sites: Sequence[str]) -> OpenedSum:
        """What was opened, in the words in which the sites can check it."""
        return OpenedSum(words, manifest, self._precision, self._sum_id, tuple(sites), self._terms["keys"])

    def _write(self, kind: str, sealed: np.ndarray | None = None, /, **entries: Any) -> Message:
        """Write a message of this sum to a party."""
        return Message(kind, {**self._sum_id.to_meta(), **entries}, {} if sealed is None else {"sealed": sealed})
