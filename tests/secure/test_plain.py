"""Sums in the clear: the reference for the other aggregators."""

from functools import partial

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, PlainAggregator

FIT = Message("task", {"task": "fit"})


def ask_of(contributions, aggregator):
    return lambda messages: (
        (site, aggregator.contributor(site).contribute(contributions[site], message))
        for site, message in messages.items()
        if site in contributions
    )


def sum_of(contributions, sites=None):
    with PlainAggregator() as aggregator:
        return aggregator.sum(ask_of(contributions, aggregator), sites or list(contributions), FIT)


def test_the_sum_is_weighted_and_a_silent_site_left_out():
    contributions = {"a": Contribution({"w": np.array([1.0, 2.0])}, 10), "b": Contribution({"w": np.ones(2)}, 3)}
    opened = sum_of(contributions, ["a", "b", "silent"])
    np.testing.assert_array_equal(opened.arrays["w"], [13.0, 23.0])
    assert (opened.weight, opened.n_sites) == (13.0, 2)


def test_nothing_is_opened_without_a_site_that_is_required():
    aggregator, contributions = PlainAggregator(), {"a": Contribution({"keys": np.ones(1), "values": np.ones((1, 2))})}
    ask = ask_of(contributions, aggregator)
    for opening in (partial(aggregator.sum, require_all=True), aggregator.select):
        with pytest.raises(AggregationError, match="from b: nothing was opened"):
            opening(ask, ["a", "b"], FIT)


def test_the_values_selected_are_of_the_site_with_the_largest_key_and_the_first_of_equals():
    keys, values = np.array([[2.0, 5, 0], [7, 5, 0]]), np.arange(12.0).reshape(2, 3, 2)
    contributions = {site: Contribution({"keys": keys[i], "values": values[i]}) for i, site in enumerate("ab")}
    aggregator = PlainAggregator()
    opened = aggregator.select(ask_of(contributions, aggregator), ["a", "b"], FIT)
    np.testing.assert_array_equal(opened.arrays["values"], [values[1, 0], values[0, 1], values[0, 2]])
    np.testing.assert_array_equal(opened.arrays["keys"], [7, 5, 0])


def test_what_can_not_be_summed_is_refused_by_site_and_name():
    fits = Contribution({"w": np.ones(2)})
    with pytest.raises(AggregationError, match=r"site 'b': w has shape \(3,\)"):
        sum_of({"a": fits, "b": Contribution({"w": np.ones(3)})})
    with pytest.raises(AggregationError, match="site 'b': w holds NaN or inf"):
        sum_of({"a": fits, "b": Contribution({"w": np.array([1.0, np.nan])})})
    with pytest.raises(AggregationError, match="no answer to the task 'fit' from a, b"):
        sum_of({}, ["a", "b"])
    with pytest.raises(AggregationError, match="nothing of a run has the kind 'hello'"):
        PlainAggregator().contributor("a").answer(Message("hello"))


def test_an_array_may_be_called_weight():
    terms = {"a": Contribution({"weight": np.ones(2)}, 2), "b": Contribution({"weight": np.full(2, 3.0)}, 1)}
    opened = sum_of(terms)
    np.testing.assert_array_equal(opened.arrays["weight"], [5.0, 5.0])
    assert (list(opened.arrays), opened.weight) == (["weight"], 3.0)


def test_an_array_by_the_name_of_the_sums_weight_is_refused_at_its_site():
    with pytest.raises(
        AggregationError, match=r"an array is called 'weight\.', as the sum's own weight: choose another"
    ):
        PlainAggregator().contributor("a").contribute(Contribution({"weight.": np.ones(2)}), FIT)


def test_what_is_refused_is_told_in_words_that_hold_for_any_sum():
    fits = Contribution({"w": np.ones(2)})
    for other in ({"v": np.ones(2)}, {"w": np.ones(3)}, {"w": np.array([1.0, np.inf])}):
        with pytest.raises(AggregationError, match=r"site 'b': .*: nothing was opened; ") as refused:
            sum_of({"a": fits, "b": Contribution(other)})
        assert not any(word in str(refused.value) for word in ("gene", "train", "learning rate", "model"))
    with pytest.raises(AggregationError, match="site 'b': names differ from the first site's: v, w on one side only"):
        sum_of({"a": fits, "b": Contribution({"v": np.ones(2)})})
    with pytest.raises(AggregationError, match="site 'a': no weight was sent"):
        PlainAggregator().sum(lambda messages: ((s, Message("fit", {}, fits.arrays)) for s in messages), ["a"], FIT)
