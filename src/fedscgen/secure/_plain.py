"""No protection: the coordinator sees what every site contributes. For study and testing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen._types import Message
from fedscgen.aggregation import check_update, weighted_sum
from fedscgen.secure._aggregator import AggregationError, Contribution, Sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen.secure._aggregator import Ask

_WEIGHT = "weight"


class PlainContributor:
    """Sends the site's arrays and weight as they are."""

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Put the arrays and the weight on the wire in the clear."""
        arrays = {**contribution.arrays, _WEIGHT: np.asarray(contribution.weight, dtype=np.float64)}
        return Message(str(task.meta["task"]), {"protection": "none"}, arrays)

    def answer(self, message: Message) -> Message:
        """Refuse: this protocol has no stage of its own."""
        raise AggregationError(f"a plain site has no answer to a message of kind {message.kind!r}")


class PlainAggregator:
    """Sums in the clear at the coordinator, over any number of sites."""

    name = "plain"
    finds_dominant = True

    def __enter__(self) -> PlainAggregator:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def contributor(self, site: str) -> PlainContributor:
        """A site's half; it holds no state."""
        return PlainContributor()

    def sum(self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False) -> Sums:
        """Sum the answers in float64; see :class:`~fedscgen.secure.Aggregator`."""
        answers = _collect(ask, sites, task, require_all=require_all)
        weights = [float(answer[_WEIGHT]) for answer in answers]
        terms = ({name: array for name, array in answer.items() if name != _WEIGHT} for answer in answers)
        return Sums(weighted_sum(terms, weights), sum(weights), len(weights))

    def dominant(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Choose in the clear; see :class:`~fedscgen.secure.Aggregator`."""
        answers = _collect(ask, sites, task, require_all=True)
        counts = np.stack([answer["counts"] for answer in answers])  # (S, L)
        means = np.stack([answer["means"] for answer in answers])  # (S, L, n_latent)
        site, label = counts.argmax(axis=0), np.arange(counts.shape[1])
        return Sums({"means": means[site, label], "n_cells": counts[site, label]}, len(answers), len(answers))


def _collect(ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool) -> list[Mapping[str, np.ndarray]]:
    """Ask every site and refuse answers that don't fit the first one's."""
    answers = ask(dict.fromkeys(sites, task))
    missing = ", ".join(site for site in sites if site not in answers)
    if not answers or (require_all and missing):
        raise AggregationError(f"no answer to the task {task.meta['task']!r} from {missing}: nothing was opened")
    arrays = [answers[site].arrays for site in sites if site in answers]
    for site, answer in answers.items():
        try:
            check_update(answer.arrays, arrays[0], who=f"site {site!r}")
        except ValueError as error:
            raise AggregationError(str(error)) from error
    return arrays
