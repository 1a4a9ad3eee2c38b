"""Secret shares among compute parties: every site splits its term, and only the sum over the sites is put together.

The parties are processes of their own, which run crypten (Knott et al. 2021, "CrypTen: Secure Multi-Party Computation
Meets Machine Learning") on loopback. A site seals every share for the one party that may hold it, so the coordinator,
which relays them, sees ciphertext until the parties open the sum. All parties together could read what the sites
share; any smaller number of them reads noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.secure._aggregator import AggregationError, Sums
from fedscgen.secure._fixed_point import decode, precision_for
from fedscgen.secure._selection import VALUES
from fedscgen.secure._sum_id import Session

# first, as it names the extra that is missing
from fedscgen.secure.crypten._contributor import MAX_ABS, CryptenContributor  # isort: split

from fedscgen.secure._identity import fingerprint
from fedscgen.secure._opened import CheckedSums
from fedscgen.secure.crypten._dealer import Needs
from fedscgen.secure.crypten._processes import Processes
from fedscgen.secure.crypten._sum import CryptenSum
from fedscgen.secure.crypten._terms import SELECTION, SUM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._types import Message
    from fedscgen.secure._aggregator import Ask


class CryptenAggregator:
    """Opens sums and selections through compute parties that it starts and ends as a context manager.

    Parameters
    ----------
    n_sites
        Sites that will take part.
    n_parties
        Compute parties, at least 2; by default one per site, up to 3. All of them would have to collude to read a
        site's term.
    max_abs
        Bound on every site's weight times value. A larger value is an error at its site. The smaller the bound, the
        finer the fixed-point numbers.
    precision
        Fractional bits, 16 to 32; by default as many as fit ``max_abs`` and the number of sites.
    timeout
        Seconds that each wait for a compute party may take.

    Attributes
    ----------
    fingerprints
        Of the compute parties' identities and the dealer's, by name. They make new ones whenever they are started; the
        contributors that are made here know them then.

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
        max_abs: float = MAX_ABS,
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
        self.fingerprints: dict[str, str] = {}
        self._session = Session()
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
        self.fingerprints.update({name: fingerprint(key) for name, key in self._processes.identities.items()})
        return self

    def __exit__(self, *exception: object) -> None:
        if self._processes is not None:
            self._processes.stop()
            self._processes = None

    def precision_for(self, n_sites: int) -> int:
        """Fractional bits used among ``n_sites``; :func:`~fedscgen.secure.error_bound` follows from it."""
        return precision_for(self.max_abs, n_sites, self.precision)

    def contributor(self, site: str) -> CryptenContributor:
        """A site's half."""
        return CryptenContributor(site, parties=self.fingerprints, max_abs=self.max_abs)

    def sum(
        self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False, may_shrink: bool = False
    ) -> Sums:
        """Sum shares; see :class:`~fedscgen.secure.Aggregator`.

        Sites that don't answer are left out of the sum, with a warning, unless ``require_all`` is set.

        Raises
        ------
        AggregationError
            Fewer than two sites contributed, or fewer than required, their contributions don't fit together, a party
            refused a share, or a compute party ended or didn't answer in time.
        """
        sum_ = self._begin(len(sites), SUM)
        answers, manifest = sum_.collect(ask, sites, task, require_all=require_all)
        sum_.share(answers)
        opened = sum_.describe(sum_.open(), manifest, list(answers))
        return CheckedSums(**vars(opened.decode()), opened=opened)

    def select(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Select each key's values by a secure arg-max; see :class:`~fedscgen.secure.Aggregator`.

        The keys stay shared, and so does which site had the largest: no ``keys`` are opened.

        Raises
        ------
        AggregationError
            As for :meth:`sum`.
        """
        sum_ = self._begin(len(sites), SELECTION)
        answers, manifest = sum_.collect(ask, sites, task, require_all=True)
        n_keys, n_dimensions = dict(manifest)[VALUES]
        if n_keys == 0:
            return Sums({VALUES: np.empty((0, n_dimensions))}, float(len(answers)), len(answers))
        sum_.share(answers)
        words = sum_.open(Needs.of_selection(self.n_parties, len(answers), n_keys, n_dimensions))
        values = decode(words, self.precision_for(len(sites))).reshape(n_keys, n_dimensions)
        return Sums({VALUES: values}, float(len(answers)), len(answers))

    def _begin(self, n_sites: int, purpose: str) -> CryptenSum:
        """Name a sum, for which the compute parties must be there."""
        if self._processes is None or not self._processes.are_alive:
            raise AggregationError("the compute parties are not running: use the aggregator in a with statement")
        precision = self.precision_for(n_sites)
        name = self._session.name_sum()
        return CryptenSum(self._processes, name, precision=precision, max_abs=self.max_abs, purpose=purpose)
