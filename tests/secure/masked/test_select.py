"""The values of the site with the largest key through masked sums, which shows the keys to the coordinator."""

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure import (
    AggregationError,
    Contribution,
    MaskedAggregator,
    MaskedContributor,
    PlainAggregator,
    error_bound,
)

TASK = Message("statistics", {"task": "statistics"})
KEYS = {"a": [5.0, 9, 0, 7], "b": [8.0, 9, 0, 6], "c": [8.0, 1, 0, 30]}  # (S, K)


def terms_to_select_from():
    rng = np.random.default_rng(3)
    values = {site: rng.standard_normal((4, 3)) * (np.array(own) > 0)[:, None] for site, own in KEYS.items()}
    return {site: Contribution({"keys": np.array(own), "values": values[site]}) for site, own in KEYS.items()}


def select(aggregator, *, answers=lambda site, message: True, contributors=None):
    """Select among the sites that answer."""
    terms = terms_to_select_from()
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

    return aggregator.select(ask, list(terms), TASK)


def test_a_selection_equals_the_plain_one_and_the_first_of_equals_wins():
    opened, plain = select(MaskedAggregator(reveal_keys=True)), select(PlainAggregator())
    np.testing.assert_array_equal(opened.arrays["keys"], [8, 9, 0, 30])
    np.testing.assert_array_equal(plain.arrays["keys"], [8, 9, 0, 30])
    np.testing.assert_allclose(opened.arrays["values"], plain.arrays["values"], rtol=0, atol=error_bound(29, 3))
    assert (opened.weight, opened.n_sites) == (plain.weight, plain.n_sites)


def test_a_selection_needs_the_consent_of_coordinator_and_sites():
    with pytest.raises(AggregationError, match="do without it, or allow it"):
        select(MaskedAggregator())
    unwilling = {site: MaskedContributor(site) for site in KEYS}
    with pytest.raises(AggregationError, match="site 'a' does not show its keys"):
        select(MaskedAggregator(reveal_keys=True), contributors=unwilling)


@pytest.mark.parametrize("number", [1, 2])
def test_a_site_that_drops_out_of_either_sum_stops_it(number):
    with pytest.raises(AggregationError, match=r"missing: c.*threshold of 3: nothing was opened"):
        select(
            MaskedAggregator(reveal_keys=True),
            answers=lambda site, message: site != "c" or message.meta["masking"]["sum"] < number,
        )


@pytest.mark.parametrize("row", [3, "x"])
def test_a_row_that_is_not_there_is_refused(row):
    aggregator, terms = MaskedAggregator(reveal_keys=True), terms_to_select_from()
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

    with pytest.raises(AggregationError, match="site 'a' refuses the message 'statistics'"):
        aggregator.select(ask, list(terms), TASK)
