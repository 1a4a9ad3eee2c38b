"""The dominant site of each cell type through masked sums, which shows the counts to the coordinator."""

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Contribution
from fedscgen.secure._fixed_point import error_bound
from fedscgen.secure._plain import PlainAggregator
from fedscgen.secure.masked._aggregator import MaskedAggregator
from fedscgen.secure.masked._contributor import MaskedContributor

TASK = Message("label statistics", {"task": "label statistics"})
COUNTS = {"a": [5.0, 9, 0, 7], "b": [8.0, 9, 0, 6], "c": [8.0, 1, 0, 30]}  # (S, L)


def label_terms():
    rng = np.random.default_rng(3)
    means = {site: rng.standard_normal((4, 3)) * (np.array(n) > 0)[:, None] for site, n in COUNTS.items()}
    return {site: Contribution({"counts": np.array(n), "means": means[site]}) for site, n in COUNTS.items()}


def dominant(aggregator, *, answers=lambda site, message: True, contributors=None):
    """Find the dominant sites among those that answer."""
    terms = label_terms()
    contributors = contributors or {site: aggregator.contributor(site) for site in terms}

    def ask(messages):
        received = {site: Message.from_bytes(message.to_bytes()) for site, message in messages.items()}
        return {
            site: contributors[site].contribute(terms[site], message)
            if "task" in message.meta
            else contributors[site].answer(message)
            for site, message in received.items()
            if answers(site, message)
        }.items()

    return aggregator.dominant(ask, list(terms), TASK)


def test_dominant_equals_plain_and_the_first_of_equals_wins():
    opened, plain = dominant(MaskedAggregator(reveal_counts=True)), dominant(PlainAggregator())
    np.testing.assert_array_equal(opened.arrays["n_cells"], [8, 9, 0, 30])
    np.testing.assert_array_equal(plain.arrays["n_cells"], [8, 9, 0, 30])
    np.testing.assert_allclose(opened.arrays["means"], plain.arrays["means"], rtol=0, atol=error_bound(29, 3))
    assert (opened.weight, opened.n_sites) == (plain.weight, plain.n_sites)


def test_dominant_needs_the_consent_of_coordinator_and_sites():
    with pytest.raises(AggregationError, match="use reference='mean', or allow it"):
        dominant(MaskedAggregator())
    unwilling = {site: MaskedContributor(site) for site in COUNTS}
    with pytest.raises(AggregationError, match="site 'a' does not show its counts"):
        dominant(MaskedAggregator(reveal_counts=True), contributors=unwilling)


@pytest.mark.parametrize("round_", [1, 2])
def test_a_site_that_drops_out_of_either_sum_stops_it(round_):
    with pytest.raises(AggregationError, match=r"missing: c.*threshold of 3: nothing was opened"):
        dominant(
            MaskedAggregator(reveal_counts=True),
            answers=lambda site, message: site != "c" or message.meta["masking"]["round"] < round_,
        )


@pytest.mark.parametrize("row", [3, "x"])
def test_a_row_that_is_not_there_is_refused(row):
    aggregator, terms = MaskedAggregator(reveal_counts=True), label_terms()
    contributors = {site: aggregator.contributor(site) for site in terms}

    def ask(messages):
        answers = {}
        for site, message in messages.items():
            if "task" not in message.meta:
                answers[site] = contributors[site].answer(message)
                continue
            masking = {**message.meta["masking"], "row": row}
            task = Message(message.kind, {**message.meta, "masking": masking})
            answers[site] = contributors[site].contribute(terms[site], task)
        return answers.items()

    with pytest.raises(AggregationError, match="site 'a' refuses the message 'label statistics'"):
        aggregator.dominant(ask, list(terms), TASK)
