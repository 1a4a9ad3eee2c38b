"""How the coordinator finds where cells belong: what it asks the sites, and what is opened of their answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from fedscgen._types import Message, References
from fedscgen.correction import NoMoreSumsError, find_landmarks
from fedscgen.federation._protocol import LANDMARKS, REFERENCES
from fedscgen.federation._transport import SiteError
from fedscgen.secure import AggregationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._types import NamedArrays
    from fedscgen.correction import Landmarks, Question, ReferenceKind
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.secure import Aggregator, Ask

logger = logging.getLogger(__name__)

NO_REFERENCES = References((), np.empty((0, 0)))


def check_reference(kind: ReferenceKind, aggregator: Aggregator) -> None:
    """Refuse references that the aggregator can't find, and warn of those that mislead.

    Raises
    ------
    ValueError
        ``"dominant"`` needs an aggregator that selects; the message names the remedy.
    """
    if kind != "landmarks":
        logger.warning(
            "reference=%r: two cell types whose references come of different sites end up apart by what differs "
            "between these sites: don't compare types, nor test genes between them, after this correction",
            kind,
        )
    if kind != "dominant" or aggregator.selects:
        return
    if aggregator.name == "masked":
        raise ValueError(
            "reference='dominant' would show every site's counts to the coordinator of a masked sum: "
            "use reference='landmarks' or 'mean', secure='crypten', or MaskedAggregator(reveal_keys=True)"
        )
    raise ValueError(
        f"reference='dominant' needs an aggregator that selects, and {aggregator.name!r} doesn't: "
        "use reference='landmarks' or 'mean', or an aggregator that does, such as secure='crypten'"
    )


def open_references(
    aggregator: Aggregator,
    ask: Ask,
    sites: Sequence[str],
    settings: FederationSettings,
    labels: Sequence[str],
    weights: NamedArrays,
    min_holders: int,
) -> References | Landmarks:
    """Find where cells belong, from sites that all answer.

    With a site missing, a type or a landmark might be left to too few, whose own mean would be opened.

    Parameters
    ----------
    aggregator, ask, sites
        How sums are opened, and over whom.
    settings
        What kind of references.
    labels
        Cell types that enough sites report.
    weights
        The federation's.
    min_holders
        See :func:`fedscgen.correction.find_landmarks`.

    Raises
    ------
    AggregationError
        The first sum could not be opened, such as when a site doesn't answer.
    SiteError
        A later one couldn't, before landmarks were there.
    """
    kind = settings.reference
    if len(sites) == 1:
        return NO_REFERENCES  # it finds its own, among its batches
    if kind == "landmarks":
        sum_over_sites = _LandmarkQuestions(aggregator, ask, sites, labels, weights)
        noise, seed = settings.label_noise, settings.find_seed()
        try:
            return find_landmarks(sum_over_sites, labels, label_noise=noise, min_holders=min_holders, seed=seed)
        except NoMoreSumsError as error:
            raise SiteError(str(error)) from error
    task = Message(REFERENCES, {"task": REFERENCES, "reference": kind, "labels": list(labels)}, weights)
    if kind == "dominant":
        sums = aggregator.select(ask, sites, task)
        n_cells, means = sums.arrays.get("keys"), sums.arrays["values"]
    else:
        sums = aggregator.sum(ask, sites, task, require_all=True)
        n_cells, means = sums.arrays["counts"], sums.arrays["sums"] / sums.arrays["counts"][:, None]
    counts = None if n_cells is None else np.rint(n_cells).astype(np.int64)
    return References(tuple(labels), means, counts, kind)


class _LandmarkQuestions:
    """Sums over the same sites throughout.

    Once a sum is open, none is opened without one of its sites: the difference of the two would be that site's own. A
    site that doesn't answer is asked once more, and then the search ends. Before that, the others may begin anew.
    """

    def __init__(
        self, aggregator: Aggregator, ask: Ask, sites: Sequence[str], labels: Sequence[str], weights: NamedArrays
    ) -> None:
        self._aggregator, self._ask, self._sites = aggregator, ask, sites
        self._labels = list(labels)
        self._weights = weights

    def __call__(self, question: Question) -> NamedArrays:
        first = question.landmarks is None
        meta = {"task": LANDMARKS, "labels": self._labels, **question.to_json()}
        task = Message(LANDMARKS, meta, self._weights if first else {})
        try:
            return self._open(task)
        except AggregationError as error:
            if first:
                raise
            logger.warning("asks all sites once more, since nothing may be opened without one of them: %s", error)
        try:  # with the weights, as a site may have been restarted
            return self._open(Message(LANDMARKS, meta, self._weights))
        except AggregationError as error:
            raise NoMoreSumsError(
                f"a site was lost while landmarks were sought, and sums without it would show its part: begin again "
                f"when all sites answer ({error})"
            ) from error

    def _open(self, task: Message) -> NamedArrays:
        return self._aggregator.sum(self._ask, self._sites, task, require_all=True).arrays
