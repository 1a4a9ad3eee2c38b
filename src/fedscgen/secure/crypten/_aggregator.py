"""Secret shares among compute parties: every site splits its term, and only the sum over the sites is put together.

The parties are processes of their own, which run crypten (Knott et al. 2021, "CrypTen: Secure Multi-Party Computation
Meets Machine Learning") on loopback. A site seals every share for the one party that may hold it, so the coordinator,
which relays them, sees ciphertext until the parties open the sum. All parties together could read what the sites
share; any smaller number of them reads noise.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Contribution, Sums
from fedscgen.secure._fixed_point import check_precision, decode, encode, precision_for
from fedscgen.secure._selection import KEYS, VALUES, read_selection
from fedscgen.secure._vector import Manifest, common_manifest, flatten, n_words, unflatten

try:
    from fedscgen.secure.crypten._dealer import DEALER, Needs, deal_message
    from fedscgen.secure.crypten._processes import Processes
    from fedscgen.secure.crypten._shares import seal_for_parties, split
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'the crypten aggregator needs cryptography: pip install "fedscgen[crypten]"', name=missing.name
    ) from None

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._aggregator import Ask

logger = logging.getLogger(__name__)

PARTIES = "parties"
"""Where a task's ``meta`` holds what a site needs to share its term."""

_SUM, _SELECT = "sum", "select"
_MAX_KEY = 2.0**53


class CryptenContributor:
    """A site's half: splits its term into shares and seals one for each compute party. It holds no state.

    Parameters
    ----------
    site
        The site's name, as the coordinator calls it.
    """

    def __init__(self, site: str) -> None:
        self.site = site

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Encode the term in fixed point, share it, and seal the shares.

        The answer's ``meta`` lists names and shapes, which are public. Its arrays are ciphertext, one a party.

        Raises
        ------
        AggregationError
            A value can't be encoded, or the task wasn't asked by a :class:`CryptenAggregator`.
        """
        if PARTIES not in task.meta:
            raise AggregationError(f"site {self.site!r} contributes shares only: run the task with a CryptenAggregator")
        terms = task.meta[PARTIES]
        keys = [bytes.fromhex(key) for key in terms["keys"]]
        if len(set(keys)) < max(2, len(keys)):
            raise AggregationError(
                f"site {self.site!r} refuses to share its term among {len(set(keys))} compute parties: at least 2"
            )
        try:
            words, manifest = _encode(contribution, terms)
        except ValueError as error:
            raise AggregationError(f"site {self.site!r} can't share its term: {error}") from error
        sealed = seal_for_parties(split(words, len(keys)), keys, terms["session"], self.site)
        meta = {"protection": "secret shares", "manifest": manifest}
        arrays = {f"party {rank}": np.frombuffer(share, np.uint8) for rank, share in enumerate(sealed)}
        return Message(str(task.meta["task"]), meta, arrays)

    def answer(self, message: Message) -> Message:
        """Refuse: all that a site does is to contribute."""
        raise AggregationError(f"a site that shares has no answer to a message of kind {message.kind!r}")


class CryptenAggregator:
    """Opens sums and selections through compute parties that it starts and ends as a context manager.

    Parameters
    ----------
    n_sites
        Sites that will take part.
    n_parties
        Compute parties, at least 2; by default one a site, up to 3. All of them would have to collude to read a
        site's term.
    max_abs
        Bound on every site's weight times value. A larger value is an error at its site. The smaller the bound, the
        finer the fixed-point numbers.
    precision
        Fractional bits, 16 to 32; by default as many as fit ``max_abs`` and the number of sites.
    timeout
        Seconds that each wait for a compute party may take.

    Raises
    ------
    ValueError
        Fewer than 2 parties, or ``max_abs`` and ``precision`` don't fit ``n_sites``.
    """

    name = "crypten"
    selects = True

    def __init__(
        self,
        n_sites: int,
        *,
        n_parties: int | None = None,
        max_abs: float = 2.0**32,
        precision: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        n_parties = max(2, min(3, n_sites)) if n_parties is None else n_parties
        if n_parties < 2:
            raise ValueError(f"n_parties={n_parties}: at least 2, as one party alone would hold every site's term")
        self.n_parties = n_parties
        self.max_abs = max_abs
        self.precision = precision
        self.timeout = timeout
        self.precision_for(n_sites)
        self._processes: Processes | None = None

    def __enter__(self) -> CryptenAggregator:
        """Start the compute parties.

        Raises
        ------
        AggregationError
            They weren't ready in time.
        ModuleNotFoundError
            The extra isn't installed.
        """
        self._processes = Processes(self.n_parties, timeout=self.timeout)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._processes is not None:
            self._processes.stop()
            self._processes = None

    def precision_for(self, n_sites: int) -> int:
        """Fractional bits used among ``n_sites``; :func:`~fedscgen.secure._fixed_point.error_bound` follows from it."""
        return precision_for(self.max_abs, n_sites, self.precision)

    def contributor(self, site: str) -> CryptenContributor:
        """A site's half."""
        return CryptenContributor(site)

    def sum(self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False) -> Sums:
        """Sum shares; see :class:`~fedscgen.secure.Aggregator`.

        Sites that don't answer are left out of the sum, with a warning, unless ``require_all`` is set.

        Raises
        ------
        AggregationError
            Fewer than two sites contributed, or fewer than required, their contributions don't fit together, a party
            refused a share, or a compute party ended or didn't answer in time.
        """
        round_ = _Round(self._running(), self.precision_for(len(sites)), self.max_abs, _SUM)
        answers, manifest = round_.collect(ask, sites, task, require_all=require_all)
        round_.share(answers, n_words(manifest) + 1)
        values = decode(round_.open(), round_.precision)
        return Sums(unflatten(values, manifest), float(values[-1]), len(answers))

    def select(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Select each key's values by a secure arg-max; see :class:`~fedscgen.secure.Aggregator`.

        The keys stay shared, and so does which site had the largest: no ``keys`` are opened.

        Raises
        ------
        AggregationError
            As for :meth:`sum`.
        """
        round_ = _Round(self._running(), self.precision_for(len(sites)), self.max_abs, _SELECT)
        answers, manifest = round_.collect(ask, sites, task, require_all=True)
        n_keys, n_dimensions = dict(manifest)[VALUES]
        if n_keys == 0:
            return Sums({VALUES: np.empty((0, n_dimensions))}, float(len(answers)), len(answers))
        round_.share(answers, n_words(manifest))
        needs = Needs.of_selection(self.n_parties, len(answers), n_keys, n_dimensions)
        words = round_.open(needs, n_keys=n_keys, n_dimensions=n_dimensions)
        values = decode(words, round_.precision).reshape(n_keys, n_dimensions)
        return Sums({VALUES: values}, float(len(answers)), len(answers))

    def _running(self) -> Processes:
        if self._processes is None or not self._processes.running:
            raise AggregationError("the compute parties are not running: use the aggregator in a with statement")
        return self._processes


class _Round:
    """One opening, from the sites' shares to the result. Its session name is never used again."""

    def __init__(self, processes: Processes, precision: int, max_abs: float, purpose: str) -> None:
        self.precision = precision
        self._processes = processes
        self._max_abs = max_abs
        self._purpose = purpose
        self._session = secrets.token_hex(16)

    def collect(
        self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool
    ) -> tuple[dict[str, Message], Manifest]:
        """Have the sites perform the task and share what comes of it; its arrays are passed on, not copied."""
        if len(set(sites)) != len(sites):
            raise AggregationError(f"sites {list(sites)} must differ by name")
        terms = {
            "session": self._session,
            "purpose": self._purpose,
            "precision": self.precision,
            "max_abs": self._max_abs,
            "n_sites": len(sites),
            "keys": [key.hex() for key in self._processes.keys],
        }
        message = Message(task.kind, {**task.meta, PARTIES: terms}, task.arrays)
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
        return answers, common_manifest(answers)

    def share(self, answers: Mapping[str, Message], length: int) -> None:
        """Hand every party its sealed shares, site by site."""
        entries = {"n_words": length, "keep_apart": self._purpose == _SELECT}
        begin = self._message("begin", **entries)
        self._processes.ask(dict.fromkeys(self._processes.parties, begin), "begun")
        for site, answer in answers.items():
            if set(answer.arrays) != set(self._processes.parties):
                raise AggregationError(f"site {site!r} did not send one share a compute party: nothing was opened")
            shares = {p: self._message("share", answer.arrays[p], site=site) for p in self._processes.parties}
            self._processes.ask(shares, "held")

    def open(self, needs: Needs | None = None, **entries: int) -> np.ndarray:
        """Have the parties put the result together; they need dealt numbers to compare and multiply."""
        parties = self._processes.parties
        messages = dict.fromkeys(parties, self._message("open"))
        if needs is not None:
            request = deal_message(self._session, needs, self._processes.keys)
            dealt = self._processes.ask({DEALER: request}, "dealt")[DEALER].arrays
            messages = {p: self._message("open", dealt[str(rank)], **entries) for rank, p in enumerate(parties)}
        try:
            return self._processes.ask(messages, "opened")[parties[0]].arrays["words"]
        except AggregationError:
            self._processes.stop()  # whoever didn't refuse waits for those who did
            raise

    def _message(self, kind: str, sealed: np.ndarray | None = None, /, **entries: Any) -> Message:
        return Message(kind, {"session": self._session, **entries}, {} if sealed is None else {"sealed": sealed})


def _encode(contribution: Contribution, terms: Mapping[str, Any]) -> tuple[np.ndarray, Manifest]:
    """The site's term as words: weight times arrays, then the weight; for a selection keys, then values."""
    precision, max_abs = int(terms["precision"]), float(terms["max_abs"])
    check_precision(precision, max_abs, int(terms["n_sites"]))
    if terms["purpose"] == _SUM:
        return flatten(contribution.arrays, contribution.weight, precision=precision, max_abs=max_abs)
    keys, values = read_selection(contribution.arrays)
    parts = [encode(keys, 0, KEYS, max_abs=_MAX_KEY), encode(values, precision, VALUES, max_abs=max_abs)]
    manifest = [(KEYS, list(keys.shape)), (VALUES, list(values.shape))]
    return np.concatenate([part.reshape(-1) for part in parts]), manifest
