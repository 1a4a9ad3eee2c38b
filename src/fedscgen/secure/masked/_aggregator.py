"""The coordinator's half of masked aggregation: relay what the sites seal for each other, and open only the sum.

After Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning". Every two sites
agree on a mask. One adds it and the other subtracts it: in the sum the masks cancel. Every site adds a further mask of
its own. Before anything is masked, each site deals shares of both secrets to the others. With these shares the sum can
be opened though sites drop out: they give the own mask of a site that contributed, and the agreed masks of one that
didn't. Where no site may drop out nothing is to be recovered: without own masks and shares, the sum is open as soon as
every site has answered, and no part of it is ever.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.secure._aggregator import AggregationError, Sums
from fedscgen.secure._fixed_point import MAX_ABS, precision_for
from fedscgen.secure._selection import KEYS, VALUES
from fedscgen.secure._sum_id import Session
from fedscgen.secure.masked._contributor import MaskedContributor
from fedscgen.secure.masked._protocol import MASKING, Terms, majority
from fedscgen.secure.masked._public_keys import OF_NEXT, PublicKeys
from fedscgen.secure.masked._sum import LostKeysError, MaskedSum, read_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen._types import Message
    from fedscgen.secure._aggregator import Ask

logger = logging.getLogger(__name__)


class MaskedAggregator:
    """Opens sums over sites that talk only to the coordinator, and nothing else of what they hold.

    Parameters
    ----------
    threshold
        Sites that must stay to the end for a sum to be opened. Fewer sites that collude with the coordinator learn
        only the sum of the others' terms. By default, and at least, the majority: ``n_sites // 2 + 1``, never below 2.
    max_abs
        Bound on every site's weight times value. A larger value is an error at its site. The smaller the bound, the
        finer the fixed-point numbers.
    precision
        Fractional bits, 16 to 32; by default as many as fit ``max_abs`` and the number of sites.
    reveal_keys
        Allow :meth:`select`, which shows the coordinator every site's keys: those that are compared, no cryptographic
        ones.

    Raises
    ------
    ValueError
        ``threshold``, ``max_abs`` or ``precision`` can't serve even two sites.
    """

    name = "masked"

    def __init__(
        self,
        *,
        threshold: int | None = None,
        max_abs: float = MAX_ABS,
        precision: int | None = None,
        reveal_keys: bool = False,
    ) -> None:
        if threshold is not None and threshold < 2:
            raise ValueError(f"threshold={threshold}: at least 2, as a sum over one site is that site's term")
        self.threshold = threshold
        self.max_abs = max_abs
        self.precision = precision
        self.reveal_keys = reveal_keys
        self.precision_for(n_sites=2)
        self._session = Session()
        self._announced: Terms | None = None  # of the first sum
        self._advertised: tuple[Terms, PublicKeys] | None = None  # for the next sum

    def __enter__(self) -> MaskedAggregator:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    @property
    def selects(self) -> bool:
        """Whether :meth:`select` may be used: ``reveal_keys``."""
        return self.reveal_keys

    def precision_for(self, n_sites: int) -> int:
        """Fractional bits used among ``n_sites``; :func:`~fedscgen.secure.error_bound` follows from it."""
        return precision_for(self.max_abs, n_sites, self.precision)

    def contributor(self, site: str) -> MaskedContributor:
        """A new site's half, which holds its keys of the current sum."""
        return MaskedContributor(site, reveal_keys=self.reveal_keys, max_abs=self.max_abs)

    def sum(
        self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False, may_shrink: bool = False
    ) -> Sums:
        """Sum through masks; see :class:`~fedscgen.secure.Aggregator`.

        With ``require_all`` the threshold is the number of sites, and the sum takes one exchange after the first such
        one; not if it ``may_shrink``, as a site may then be missing until all have dealt shares.

        Raises
        ------
        AggregationError
            Fewer sites than the threshold stayed to the end, or their contributions don't fit together.
        ValueError
            ``max_abs`` is too wide for so many sites.
        """
        if not require_all or may_shrink:
            return self._begin(ask, sites, require_all=require_all).run(task)
        try:
            return self._open_whole(ask, sites, task)
        except LostKeysError:
            logger.warning("a site was started anew, and has lost its keys of the sum: it is begun again with new ones")
            return self._open_whole(ask, sites, task)

    def _open_whole(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Open a sum over all sites, with the keys that came with their answers to the last one if there are any."""
        advertised = self._advertised
        sum_ = self._begin(ask, sites, require_all=True, whole=True)
        if advertised is not None and advertised[1].sites == sum_.sites:
            sum_ = MaskedSum(ask, sites, *advertised)
        following = replace(sum_.terms, sum_id=self._session.name_sum())
        sums = sum_.run_whole(task, following)
        if sum_.following.keys() == set(sites):
            self._advertised = following, PublicKeys.join(sum_.following[site] for site in sites)
        return sums

    def prepare(self, sites: Sequence[str]) -> dict[str, Any]:
        """On which terms the first sum will be; see :class:`~fedscgen.secure.PreparingAggregator`."""
        self._announced = self._name_terms(sites, require_all=True, whole=True)
        return {MASKING: self._announced.to_json()}

    def take_prepared(self, answers: Mapping[str, Message]) -> None:
        """Keep the sites' public keys for the first sum."""
        keys = PublicKeys.join(read_keys(site, answer, OF_NEXT) for site, answer in answers.items())
        if self._announced is not None:
            self._advertised = self._announced, keys

    def select(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Open the matrix of keys, then the chosen sites' values; see :class:`~fedscgen.secure.Aggregator`.

        Two masked sums over the same task: in the first each site fills its own row of a ``(n_sites, n_keys)`` matrix,
        in the second it contributes its values of those keys for which it was chosen.

        Raises
        ------
        AggregationError
            As for :meth:`sum`; ``reveal_keys`` was not set; or a site dropped out.
        """
        if not self.reveal_keys:
            raise AggregationError(
                "a masked selection shows every site's keys to the coordinator: "
                "do without it, or allow it with MaskedAggregator(reveal_keys=True)"
            )
        rows = {site: {"row": row, "n_rows": len(sites)} for row, site in enumerate(sites)}
        keys = np.rint(self._begin(ask, sites, require_all=True).run(task, rows).arrays[KEYS])  # (S, K)
        chosen = keys.argmax(axis=0)  # the first of equals
        selected = {site: {"selected": (chosen == row).tolist()} for row, site in enumerate(sites)}
        values = self._begin(ask, sites, require_all=True).run(task, selected).arrays[VALUES]
        return Sums({KEYS: keys.max(axis=0), VALUES: values}, float(len(sites)), len(sites))

    def _begin(self, ask: Ask, sites: Sequence[str], *, require_all: bool, whole: bool = False) -> MaskedSum:
        """A new sum. Keys of one that isn't this are gone."""
        self._advertised = None
        return MaskedSum(ask, sites, self._name_terms(sites, require_all=require_all, whole=whole))

    def _name_terms(self, sites: Sequence[str], *, require_all: bool, whole: bool) -> Terms:
        """Check what a sum needs before any site is asked, and name it."""
        if len(set(sites)) != len(sites):
            raise AggregationError(f"sites {list(sites)} must differ by name")
        if len(sites) < 2:
            raise AggregationError(f"a masked sum over {len(sites)} sites would open one site's term: at least 2")
        least = majority(len(sites))
        threshold = len(sites) if require_all else self.threshold or least
        if not least <= threshold <= len(sites):
            raise AggregationError(
                f"threshold={threshold} for {len(sites)} sites: choose {least} (the majority) to {len(sites)}"
            )
        return Terms(self._session.name_sum(), threshold, self.precision_for(len(sites)), self.max_abs, whole)
