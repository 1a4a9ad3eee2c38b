"""What sites and coordinators say that doesn't fit, or is more than they may: it is refused, and a site is named."""

from dataclasses import replace

import numpy as np
import pytest

from fedscgen._types import Message, WireFormatError
from fedscgen.federation import InProcessTransport, Server, SiteError

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from attackers import BEGIN, SETTINGS, SITES, agreed, make_clients, run
from fedscgen.secure import MaskedAggregator, MaskedContributor, Sums


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"weight": 1.0},
        {"weight": "1", "n_sites": 3},
        {"ended": 5},
        {"manifest": [["a", [-1]]], "precision": 27, "sites": ["site0"], "keys": "", "session": "", "sum": 1},
    ],
)
def test_what_is_published_has_the_entries_of_an_opened_sum(meta):
    clients = make_clients()
    agreed(clients)
    data = Message("opened sum", meta, {"words": np.zeros(3, np.uint64)}).to_bytes()
    question = Message(BEGIN.kind, {**BEGIN.meta, "opened": [1]}, {"opened sum 1": np.frombuffer(data, np.uint8)})
    with pytest.raises(WireFormatError, match="is published as an opened sum, with entries that none has"):
        clients[0].handle(question.to_bytes())


class Answering(InProcessTransport):
    """One site answers one kind of message with other entries."""

    def __init__(self, clients, kind, **meta):
        super().__init__(clients)
        self.kind, self.meta = kind, meta

    def ask(self, messages):
        for site, answer in super().ask(messages):
            odd = site == "site2" and messages[site].kind == self.kind
            yield site, replace(answer, meta={**answer.meta, **self.meta}) if odd else answer


@pytest.mark.parametrize(
    ("kind", "meta", "said"),
    [
        ("genes and cell types", {"introduction": {"identity": 5}}, "'introduction' is dict of 1: expected a table"),
        ("genes and cell types", {"n_cells_at_most": 2**40}, "'n_cells_at_most' is int: expected a whole number"),
        ("settings", {"sealed": {"site1": 5}}, "'sealed' is dict of 1: expected a table of text"),
        ("settings", {"sealed": {"nobody": "00"}}, "site 'site2' has sealed a key for 'nobody'"),
        ("settings", {"sealed": {"site1": "00"}}, "site 'site2' has sealed a key for 'site1', which another has done"),
    ],
)
def test_a_site_that_answers_oddly_is_named(kind, meta, said):
    server = Server(Answering(make_clients(), kind, **meta), MaskedAggregator(), SETTINGS)
    with pytest.raises(SiteError, match=said):
        server.agree()


def test_a_site_may_say_more_than_it_is_asked_without_harm():
    Server(Answering(make_clients(), "genes and cell types", round=1), MaskedAggregator(), SETTINGS).agree()


@pytest.mark.parametrize("axis", [0, 3])
def test_a_site_whose_components_point_the_other_way_is_named(axis):
    """Every site finds them by its own linear algebra: without this, the sum would be of weights that don't fit."""
    clients = make_clients()

    contribute = clients[1]._contribute

    def turn(message):
        if message.kind == "model weights":
            clients[1]._guard.program.task.arrays["linear_path.axes"][axis] *= -1
        return contribute(message)

    clients[1]._contribute = turn
    with pytest.raises(
        SiteError, match="site 'site1' has found other numbers for 'model weights' than the coordinator"
    ):
        run(clients)


def test_another_size_than_a_site_has_announced_is_not_passed_on():
    def swell(site, message):
        sizes = {**message.meta["n_cells_at_most"], "site2": 128}
        return Message(message.kind, {**message.meta, "n_cells_at_most": sizes})

    with pytest.raises(SiteError, match="site 'site2' has announced 64 cells, and another number is passed on"):
        run(kind="settings", change=swell)


def test_a_site_that_announces_nearly_all_cells_is_not_summed_with():
    """What it announces bounds its weight: with 2**20 cells, it would decide alone what all learn."""
    server = Server(
        Answering(make_clients(), "genes and cell types", n_cells_at_most=2**20), MaskedAggregator(), SETTINGS
    )
    with pytest.raises(SiteError, match=r"sum with site 'site2', which announces 100.0% of all cells, .* max_share"):
        server.agree()


def test_the_coordinator_keeps_no_sum_that_all_sites_know():
    server, _ = agreed()
    server._perform_all("sums before training")
    assert len(server._published._opened) == 1, "the last one goes out with what is asked next"


def test_genes_that_a_site_alone_may_have_need_its_consent():
    with pytest.raises(
        SiteError, match=r"work on genes that this site alone may have, but the site allows .* gene_union"
    ):
        agreed(settings=replace(SETTINGS, genes="union"))


def test_a_site_that_shows_its_counts_believes_no_other_sum_for_that():
    """What a selection chooses can't be checked; beside its values, nothing else is taken on trust."""

    class Unchecked(MaskedAggregator):
        def sum(self, *args, **options):
            sums = super().sum(*args, **options)
            return Sums({**sums.arrays, "values": np.zeros((1, 1))}, sums.weight, sums.n_sites)

    clients = make_clients({site: MaskedContributor(site, reveal_keys=True) for site in SITES})
    with pytest.raises(SiteError, match="is no sum of masked words, which a site could check"):
        run(clients, aggregator=Unchecked())
