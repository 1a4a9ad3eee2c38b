"""No protection: the coordinator sees what every site contributes. For study and testing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen._types import Message
from fedscgen.aggregation import check_update, weighted_sum
from fedscgen.secure._aggregator import AggregationError, Contribution, Sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen.secure._aggregator import Ask

_WEIGHT = "weight"


class PlainContributor:
    """Sends the site's arrays and weight as they are."""

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Put the arrays and the weight on the wire in the clear."""
        arrays = {**contribution.arrays, _WEIGHT: np.float64(contribution.weight)}
        return Message(str(task.meta["task"]), {"protection": "none"}, arrays)

    def answer(self, message: Message) -> Message:
        """Refuse: this protocol has no stage of its own."""
        raise AggregationError(f"a plain site has no answer to a message of kind {message.kind!r}")


class PlainAggregator:
    """Sums in the clear at the coordinator, over any number of sites."""

    name = "plain"

    def __enter__(self) -> PlainAggregator:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def contributor(self, site: str) -> PlainContributor:
        """A site's half; it holds no state."""
        return PlainContributor()

    def sum(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Sum the answers in float64; see :class:`~fedscgen.secure.Aggregator`."""
        answers = ask(dict.fromkeys(sites, task))
        if not answers:
            raise AggregationError(f"no site answered the task {task.meta['task']!r}")
        terms = []
        weights = []
        expected = next(iter(answers.values())).arrays
        for site, answer in answers.items():
            try:
                check_update(answer.arrays, expected, who=f"site {site!r}")
            except ValueError as error:
                raise AggregationError(str(error)) from error
            terms.append({name: array for name, array in answer.arrays.items() if name != _WEIGHT})
            weights.append(float(answer.arrays[_WEIGHT]))
        return Sums(weighted_sum(terms, weights), sum(weights), len(weights))
