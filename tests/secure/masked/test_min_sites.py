"""How few sites a sum may have is up to each site, whatever the coordinator's threshold."""

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, MaskedAggregator, MaskedContributor

SITES = "abcde"
STAGES = ["mask public keys", "encrypted key shares", "train", "unmasking shares"]
TRAIN = Message("train", {"task": "weights"})


def sum_without_e(stage, min_sites):
    """What a will have answered, and the sum of five sites' ones, to be run, in which e falls silent at a stage."""
    contributors = {site: MaskedContributor(site) for site in SITES}
    contributors["a"] = MaskedContributor("a", min_sites=min_sites)
    answered = []

    def answer(site, message):
        if "task" in message.meta:
            given = contributors[site].contribute(Contribution({"w": np.ones(4)}), message)
        else:
            given = contributors[site].answer(message)
        if site == "a":
            answered.append(message.kind)
        return given

    def ask(messages):
        return [
            (site, answer(site, message))
            for site, message in messages.items()
            if site != "e" or STAGES.index(message.kind) < STAGES.index(stage)
        ]

    return answered, lambda: MaskedAggregator().sum(ask, list(SITES), TRAIN)


@pytest.mark.parametrize("stage", STAGES[:3])
def test_a_site_refuses_a_sum_over_fewer_sites_than_it_decided(stage):
    """The coordinator's threshold of 3 would do."""
    answered, run = sum_without_e(stage, min_sites=5)
    with pytest.raises(AggregationError, match="site 'a' refuses a sum over 4 sites: its own min_sites is 5"):
        run()
    assert answered == STAGES[: STAGES.index(stage) + 1], "it answers until it is told who is left"


@pytest.mark.parametrize("stage", STAGES[:3])
def test_a_site_takes_part_where_enough_sites_stay(stage):
    _, run = sum_without_e(stage, min_sites=4)
    np.testing.assert_allclose(run().arrays["w"], np.full(4, 4.0), atol=1e-6)


def test_a_site_cannot_decide_on_sums_over_itself_alone():
    with pytest.raises(ValueError, match="min_sites=1: at least 2, as a sum over one site is that site's term"):
        MaskedContributor("a", min_sites=1)
