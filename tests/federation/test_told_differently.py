"""A coordinator who tells each site something else of one sum, so that it comes apart into the sites' own terms."""

import numpy as np
import pytest

from fedscgen._types import Message

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from attackers import SETTINGS, SITES, Lying, make_clients
from fedscgen.federation import Server
from fedscgen.secure import AggregationError, MaskedAggregator, MaskedContributor

TASK = Message("sums before training", {"task": "sums before training", "number": 1})
FINE, COARSE = 28, 16


class Remembering(MaskedContributor):
    own = None

    def contribute(self, contribution, task):
        self.own = contribution
        return super().contribute(contribution, task)


def tell_another_precision(site, message):
    """With fewer fractional bits at all others, their terms are in the last digits of one site's own."""
    masking = {**message.meta["masking"], "precision": FINE if site == "site0" else COARSE}
    return Message(message.kind, {**message.meta, "masking": masking}, message.arrays)


def open_it(contributor):
    transport = Lying(make_clients({"site0": contributor}), "settings", tell_another_precision)
    server = Server(transport, MaskedAggregator(), SETTINGS)
    server.agree()
    return server._aggregator.sum(server._ask, list(SITES), TASK, require_all=True)


def test_sites_that_were_told_other_fractional_bits_open_nothing():
    with pytest.raises(AggregationError, match=r"on other terms than 'site0': .* nothing was opened"):
        open_it(MaskedContributor("site0"))


def test_a_coordinator_who_opens_it_all_the_same_has_noise(monkeypatch):
    told = "fedscgen.secure.masked._sum.common_entry"
    monkeypatch.setattr(told, lambda answers, name: next(iter(answers.values())).meta["told"])
    contributor = Remembering("site0")
    words = open_it(contributor).opened.words
    own = contributor.own.weight * contributor.own.arrays["gene_mean"]
    shown = words[: own.size].view(np.int64) / 2.0**FINE
    assert np.abs(shown - own).min() > np.abs(own).max(), "noise is far from any number of the site's"
