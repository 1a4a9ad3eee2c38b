"""Sums of the published network's size: 4.1 million parameters, from 2 to 10 sites."""

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.secure import Contribution, PlainAggregator, error_bound, make_aggregator

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

SHAPES = {"encoder": (800, 1767), "first": (800, 800), "second": (800, 800), "decoder": (1767, 800)}
TASK = Message("fit", {"task": "fit"})


def contributions(n_sites):
    rng = np.random.default_rng(n_sites)
    for site in range(n_sites):
        arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
        yield f"site {site}", Contribution(arrays, weight=float(rng.integers(100, 5000)))


def sum_of(aggregator, terms):
    contributors = {site: aggregator.contributor(site) for site in terms}

    def ask(messages):
        for site, message in messages.items():
            received = Message.from_bytes(message.to_buffer())
            is_task = "task" in received.meta
            contributor = contributors[site]
            yield site, contributor.contribute(terms[site], received) if is_task else contributor.answer(received)

    return aggregator.sum(ask, list(terms), TASK)


@pytest.mark.parametrize("n_sites", [2, 10])
@pytest.mark.parametrize("secure", ["masked", "crypten"])
def test_sums_of_the_published_network_equal_plain_ones(secure, n_sites):
    if secure == "crypten":
        pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")
    terms = dict(contributions(n_sites))
    plain = sum_of(PlainAggregator(), terms)
    with make_aggregator(secure, n_sites) as aggregator:
        opened = sum_of(aggregator, terms)
        bound = error_bound(aggregator.precision_for(n_sites), n_sites)
    assert bound < 1e-7
    assert opened.weight == plain.weight
    for name, array in plain.arrays.items():
        np.testing.assert_allclose(opened.arrays[name], array, rtol=1e-15, atol=bound, err_msg=name)
