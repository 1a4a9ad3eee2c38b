"""What the crypten aggregator opens, and what it refuses."""

import logging
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("platformdirs", reason="needs the extra fedscgen[crypten]")

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, CryptenAggregator, PlainAggregator, error_bound
from fedscgen.secure.crypten._shares import add_share

FIT = Message("task", {"task": "fit"}, {"global": np.ones(3, np.float32)})
STATISTICS = Message("task", {"task": "statistics"})


@pytest.fixture(scope="module")
def two_parties():
    with CryptenAggregator(10, n_parties=2, timeout=30) as aggregator:
        yield aggregator


@pytest.fixture(scope="module")
def three_parties():
    with CryptenAggregator(10, n_parties=3, timeout=30) as aggregator:
        yield aggregator


@pytest.fixture(params=["two_parties", "three_parties"])
def crypten(request):
    return request.getfixturevalue(request.param)


def terms(n_sites, *, seed=0, size=50):
    rng = np.random.default_rng(seed)
    return {
        f"site {i}": Contribution(
            {
                "w": rng.normal(scale=30, size=(size, 2)).astype(np.float32),
                "b": rng.normal(size=3),
                "s": np.full(1, i / 3),
            },
            weight=float(rng.integers(50, 5000)),
        )
        for i in range(n_sites)
    }


def answer_all(aggregator, contributions, messages):
    """Every site in this process, through the bytes of the wire."""
    answers = {}
    for site, message in messages.items():
        task = Message.from_bytes(message.to_bytes())
        answer = aggregator.contributor(site).contribute(contributions[site], task)
        answers[site] = Message.from_bytes(answer.to_bytes())
    return answers.items()


def sum_of(aggregator, contributions, task=FIT):
    return aggregator.sum(partial(answer_all, aggregator, contributions), list(contributions), task)


def selection_of(aggregator, keys, values):
    contributions = {f"site {i}": Contribution({"keys": keys[i], "values": values[i]}) for i in range(len(keys))}
    return aggregator.select(partial(answer_all, aggregator, contributions), list(contributions), STATISTICS)


def assert_same_sums(opened, expected, bound):
    assert opened.n_sites == expected.n_sites
    assert opened.weight == pytest.approx(expected.weight, abs=bound)
    assert opened.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert opened.arrays[name].shape == array.shape
        np.testing.assert_allclose(opened.arrays[name], array, rtol=2**-50, atol=bound)


@pytest.mark.parametrize("n_sites", [2, 3, 5, 10])
def test_shared_sum_equals_plain_sum(crypten, n_sites):
    contributions = terms(n_sites)
    bound = error_bound(crypten.precision_for(n_sites), n_sites)
    assert_same_sums(sum_of(crypten, contributions), sum_of(PlainAggregator(), contributions), bound)


@given(st.data(), st.integers(2, 6), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_shared_sum_equals_plain_sum_for_any_values(two_parties, data, n_sites, size):
    values = st.floats(-(2.0**20), 2.0**20, width=32)
    arrays = data.draw(st.lists(st.lists(values, min_size=size, max_size=size), min_size=n_sites, max_size=n_sites))
    contributions = {f"{i}": Contribution({"w": np.array(a, np.float64)}, weight=i + 0.5) for i, a in enumerate(arrays)}
    bound = error_bound(two_parties.precision_for(n_sites), n_sites)
    assert_same_sums(sum_of(two_parties, contributions), sum_of(PlainAggregator(), contributions), bound)


def test_five_parties_sum_and_select():
    rng = np.random.default_rng(3)
    keys, values = rng.integers(0, 3, size=(4, 6)).astype(float), rng.normal(size=(4, 6, 2))
    with CryptenAggregator(4, n_parties=5, timeout=30) as crypten:
        assert_same_sums(sum_of(crypten, terms(4)), sum_of(PlainAggregator(), terms(4)), 1e-6)
        opened = selection_of(crypten, keys, values).arrays["values"]
    np.testing.assert_allclose(opened, values[keys.argmax(axis=0), np.arange(6)], atol=1e-7)


@pytest.mark.parametrize("n_sites", [2, 3, 5])
def test_a_selection_is_of_the_first_site_with_the_largest_key(crypten, n_sites):
    rng = np.random.default_rng(n_sites)
    keys = rng.integers(0, 4, size=(n_sites, 12)).astype(np.float64)  # many ties
    keys[:, 0] = 0  # zero at every site
    keys[:, 1] = 7  # the same at every site
    values = rng.normal(scale=5, size=(n_sites, 12, 10))
    opened = selection_of(crypten, keys, values)
    expected = values[keys.argmax(axis=0), np.arange(12)]
    np.testing.assert_allclose(
        opened.arrays["values"], expected, rtol=0, atol=error_bound(crypten.precision_for(n_sites), 1)
    )
    assert opened.arrays.keys() == {"values"}  # no key, and not which site
    assert opened.weight == opened.n_sites == n_sites


@given(st.data(), st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_a_selection_equals_the_plain_one_for_any_keys(two_parties, data, n_sites, n_keys):
    key = st.integers(0, 3) | st.integers(0, 10**9)
    row = st.lists(key, min_size=n_keys, max_size=n_keys)
    keys = np.array(data.draw(st.lists(row, min_size=n_sites, max_size=n_sites)), np.float64)
    values = np.arange(keys.size * 2, dtype=np.float64).reshape(n_sites, n_keys, 2)
    plain = selection_of(PlainAggregator(), keys, values)
    np.testing.assert_allclose(selection_of(two_parties, keys, values).arrays["values"], plain.arrays["values"])


def test_a_selection_without_any_key(two_parties):
    opened = selection_of(two_parties, np.zeros((2, 0)), np.zeros((2, 0, 4)))
    assert opened.arrays["values"].shape == (0, 4)


def test_a_site_that_drops_out_is_left_out_of_the_sum(two_parties, caplog):
    contributions = terms(3)

    def ask(messages):
        return answer_all(two_parties, contributions, {s: m for s, m in messages.items() if s != "site 1"})

    with caplog.at_level(logging.WARNING):
        opened = two_parties.sum(ask, list(contributions), FIT)
    del contributions["site 1"]
    assert_same_sums(opened, sum_of(PlainAggregator(), contributions), 1e-6)
    assert "missing: site 1" in caplog.text


def test_a_sum_over_one_site_is_never_opened(two_parties):
    contributions = terms(2)

    def ask(messages):
        return answer_all(two_parties, contributions, {"site 0": messages["site 0"]})

    with pytest.raises(AggregationError, match=r"1 of 2 sites contributed \(missing: site 1\)"):
        two_parties.sum(ask, list(contributions), FIT)
    with pytest.raises(AggregationError, match="must differ"):
        two_parties.sum(ask, ["site 0", "site 0"], FIT)


def test_nothing_is_opened_without_a_site_that_is_required(two_parties):
    arrays = {"keys": np.ones(1), "values": np.ones((1, 2))}
    contributions = {f"site {i}": Contribution(arrays) for i in range(3)}

    def ask(messages):
        return answer_all(two_parties, contributions, {s: m for s, m in messages.items() if s != "site 1"})

    for opening in (partial(two_parties.sum, require_all=True), two_parties.select):
        with pytest.raises(AggregationError, match=r"2 of 3 .*missing: site 1\), fewer than 3: nothing was opened"):
            opening(ask, list(contributions), FIT)


def test_altered_shares_are_refused_and_the_parties_go_on(two_parties):
    contributions = terms(2)

    def ask(messages, party):
        answers = dict(answer_all(two_parties, contributions, messages))
        altered = answers["site 1"].arrays[party].copy()
        altered[-20] ^= 1
        arrays = {**answers["site 1"].arrays, party: altered}
        return {**answers, "site 1": Message("fit", answers["site 1"].meta, arrays)}.items()

    for party in ("party 0", "party 1"):
        with pytest.raises(AggregationError, match=rf"{party}: the share of site 'site 1' is refused: altered"):
            two_parties.sum(partial(ask, party=party), list(contributions), FIT)
    assert sum_of(two_parties, contributions).n_sites == 2


def test_contributions_that_do_not_fit_together_are_refused(two_parties):
    contributions = {**terms(2), "site 2": terms(1, size=49)["site 0"]}
    with pytest.raises(
        AggregationError, match=r"site 'site 2' contributed 'w' of shape \[49, 2\], the others \[50, 2\]"
    ):
        sum_of(two_parties, contributions)
    plain = PlainAggregator().contributor("site 2")
    with pytest.raises(AggregationError, match="another aggregator"):
        two_parties.sum(
            lambda messages: [
                *answer_all(two_parties, contributions, {s: messages[s] for s in ("site 0", "site 1")}),
                ("site 2", plain.contribute(contributions["site 2"], messages["site 2"])),
            ],
            list(contributions),
            FIT,
        )


def test_overflow_is_refused_by_name(two_parties, monkeypatch):
    monkeypatch.setattr(two_parties, "max_abs", 1000.0)
    big = Contribution({"w": np.array([1.0, 30.0])}, weight=50)
    with pytest.raises(AggregationError, match=r"w\[1\] is 30, which times the weight 50 exceeds max_abs=1000"):
        sum_of(two_parties, {"big": big, "other": big})
    with pytest.raises(AggregationError, match="weight"):
        sum_of(two_parties, dict.fromkeys("ab", Contribution({"w": np.zeros(1)}, weight=5000)))
    with pytest.raises(AggregationError, match=r"values\[0, 0\] is 10000.*max_abs"):
        selection_of(two_parties, np.ones((2, 1)), np.full((2, 1, 3), 1e4))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="n_parties=1: at least 2"):
        CryptenAggregator(3, n_parties=1)
    with pytest.raises(ValueError, match="max_abs"):
        CryptenAggregator(3, max_abs=1e18)
    with pytest.raises(ValueError, match="precision=40"):
        CryptenAggregator(3, precision=40)
    assert [CryptenAggregator(n).n_parties for n in (2, 3, 10)] == [2, 3, 3]
    with pytest.raises(AggregationError, match="with statement"):
        sum_of(CryptenAggregator(2), terms(2))


def test_shares_of_another_length_are_refused():
    with pytest.raises(ValueError, match="16 bytes long, expected 24"):
        add_share(np.zeros(3, np.uint64), bytes(16), is_seed=False)
    with pytest.raises(ValueError, match="24 bytes long, expected 32"):
        add_share(np.zeros(3, np.uint64), bytes(24), is_seed=True)
