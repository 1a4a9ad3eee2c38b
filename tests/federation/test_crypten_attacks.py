"""A coordinator who lies in a run with shares: what it gets is a refusal by name."""

from dataclasses import replace

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.federation import SiteError

pytest.importorskip("cryptography", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")

from attackers import SITES, make_clients, run
from fedscgen.secure import AggregationError, CryptenAggregator, Identity


class Forging(CryptenAggregator):
    """Opens the sums, and publishes others once it is told to."""

    forges = False

    def sum(self, *args, **options):
        sums = super().sum(*args, **options)
        words = sums.opened.words.copy()
        words[0] += np.uint64(self.forges)
        return replace(sums, opened=replace(sums.opened, words=words))


@pytest.fixture(scope="module")
def aggregator():
    with Forging(3, n_parties=2, timeout=30) as crypten:
        yield crypten


def clients_of(aggregator):
    return make_clients({site: aggregator.contributor(site) for site in SITES})


def test_a_swapped_key_of_a_party_ends_the_run(aggregator):
    def swap(site, message):
        told = message.meta["parties"]
        shown = {**told["parties"]["party 1"], "channel": Identity().public.hex()}
        parties = {**told, "parties": {**told["parties"], "party 1": shown}}
        return Message(message.kind, {**message.meta, "parties": parties}, message.arrays)

    with pytest.raises((SiteError, AggregationError), match="compute party 'party 1' has not signed its key"):
        run(clients_of(aggregator), "sums before training", swap, aggregator=aggregator)


def test_a_sum_that_the_parties_have_not_opened_is_believed_by_no_site(aggregator):
    aggregator.forges = True
    with pytest.raises((SiteError, AggregationError), match="is not the sum of what the sites contributed"):
        run(clients_of(aggregator), aggregator=aggregator)
