"""A coordinator who keeps to every run's plan, and makes something of several runs, or of forms that others use."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cells import SMALL, make_adata
from fedscgen._types import Message
from fedscgen.federation import FederationSettings, InProcessTransport, Server, SiteError, SitePolicy
from quick import make_client

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen.secure import MaskedAggregator, MaskedContributor

SITES = ["site0", "site1", "site2"]
SETTINGS = FederationSettings(n_rounds=0, seed=0, model={**SMALL, "n_latent": 22})
SPANNED = r"sums of whole cells would be open of perhaps no more than .* from which single cells could be computed"


class Curious(MaskedAggregator):
    """Keeps what it opens."""

    def __init__(self):
        super().__init__()
        self.opened = []

    def sum(self, *args, **options):
        sums = super().sum(*args, **options)
        self.opened.append(sums.arrays)
        return sums


def open_components(adata, settings=SETTINGS, policy=None, record=None):
    """All sums before training of a run, as the coordinator has them, and the clients."""
    clients = [
        make_client(
            site,
            adata[adata.obs["batch"] == site].copy(),
            MaskedContributor(site),
            policy=SitePolicy() if policy is None else policy,
            record=None if record is None else record / f"{site}.json",
        )
        for site in sorted(set(adata.obs["batch"]))
    ]
    aggregator = Curious()
    server = Server(InProcessTransport(clients), aggregator, settings)
    server.agree()
    server._perform_all("sums before training")
    return aggregator.opened, clients


def test_sums_over_fewer_cells_than_genes_do_not_come_to_span_them(tmp_path):
    """Cells are the sparse vectors in what they span, so that a linear program finds them there."""
    adata = make_adata(n_genes=200)
    with pytest.raises(SiteError, match=SPANNED):
        open_components(adata, record=tmp_path)
    allowed, clients = open_components(adata, policy=SitePolicy(few_cells=True), record=tmp_path)
    spanned = np.hstack([arrays["gene_product"] for arrays in allowed])
    assert np.linalg.matrix_rank(spanned, tol=1e-5) == sum(client.model.n_training_cells() for client in clients)


def test_cells_are_not_spanned_over_several_runs_either(tmp_path):
    adata = make_adata(n_cells=1400, n_genes=800)
    settings = [replace(SETTINGS, model={**SMALL, "n_latent": n_latent}) for n_latent in (22, 23, 24)]
    for given in settings[:2]:
        open_components(adata, given, record=tmp_path)
    with pytest.raises(SiteError, match=SPANNED):
        open_components(adata, settings[2], record=tmp_path)


def test_runs_over_some_of_the_genes_each_do_not_add_up_to_all_either(tmp_path):
    """Of fewer genes than cells even all of a covariance shows no cell; of those of many runs together it does."""
    adata = make_adata(n_cells=1400, n_genes=800)
    names = list(adata.var_names)
    parts = [tuple(names[:600]), tuple(names[200:]), tuple(names[:300] + names[500:])]
    for part in parts[:2]:
        open_components(adata, replace(SETTINGS, gene_list=part), record=tmp_path)
    with pytest.raises(SiteError, match=SPANNED):
        open_components(adata, replace(SETTINGS, gene_list=parts[2]), record=tmp_path)


def test_a_run_that_is_repeated_opens_what_was_open(tmp_path):
    """The same cells are chosen for training in all runs: else even this would show others each time."""
    adata = make_adata()
    first, clients = open_components(adata, record=tmp_path)
    again, others = open_components(adata, record=tmp_path)
    assert [client._seed for client in clients] == [client._seed for client in others]
    for one, other in zip(first, again, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array)
    assert clients[0]._record._read()[1]["vectors"] == others[0]._record._read()[1]["vectors"] != {}
    of_other_cells = make_client("site0", adata[5:].copy(), MaskedContributor("site0"), record=tmp_path / "site0.json")
    assert of_other_cells._seed != clients[0]._seed


class Telling(InProcessTransport):
    """Tells sites something else in the messages of a kind."""

    def __init__(self, clients, kind, change):
        super().__init__(clients)
        self.kind, self.change = kind, change

    def ask(self, messages):
        yield from super().ask(
            {site: self.change(site, m) if m.kind == self.kind else m for site, m in messages.items()}
        )


def make_federation(kind, change, contributors=None, **options):
    adata = make_adata()
    clients = [
        make_client(site, adata[adata.obs["batch"] == site].copy(), made, policy=SitePolicy(), **options)
        for site, made in (contributors or {site: MaskedContributor(site) for site in SITES}).items()
    ]
    return Server(Telling(clients, kind, change), MaskedAggregator(), SETTINGS)


def test_an_introduction_of_an_earlier_run_opens_no_group_key(monkeypatch):
    """Its signature is good, if the coordinator proposes the same plan under the same name; its key is gone."""
    one_name = SimpleNamespace(token_hex=lambda n_bytes: "ab" * n_bytes)
    monkeypatch.setattr("fedscgen.federation._plan.secrets", one_name)
    contributors = {site: MaskedContributor(site) for site in SITES}
    first = make_federation("settings", lambda site, message: message, contributors)
    first.agree()
    before = first._program._terms.introductions["site2"]

    def replay(site, message):
        told = {**message.meta["introductions"], "site2": before}
        return message if site == "site2" else Message(message.kind, {**message.meta, "introductions": told})

    server = make_federation("settings", replay, contributors)
    server.agree()
    with pytest.raises(SiteError, match=r"site 'site2' failed at 'sums before training': .* was altered on its way"):
        server._perform("sums before training")


def test_names_that_are_guessed_in_the_clear_are_held_by_nobody_where_names_are_hashed():
    def guess(site, message):
        return Message(message.kind, {**message.meta, "labels": ["type0", "type1"]})

    server = make_federation("settings", guess, label_salt="a secret of the sites")
    server.agree()
    server._program.labels = ["type0", "type1"]
    server._perform_all("sums before training", "holders of cell types")
    assert server._program.labels == []


def test_no_sum_is_taken_apart_by_the_rows_of_a_selection():
    def ask_for_rows(site, message):
        masking = {**message.meta["masking"], "row": SITES.index(site), "n_rows": len(SITES)}
        return Message(message.kind, {**message.meta, "masking": masking}, message.arrays)

    server = make_federation("sums before training", ask_for_rows)
    server.agree()
    with pytest.raises(SiteError, match="site 'site0' does not show its keys"):
        server._perform("sums before training")


def test_means_of_fewer_sites_than_a_site_wishes_are_not_opened():
    def lower(site, message):
        return Message(message.kind, {**message.meta, "min_holders": 1})

    with pytest.raises(SiteError, match="means of 1 sites shall be opened, and min_holders=2 at this site"):
        make_federation("settings", lower).agree()


@pytest.mark.parametrize("told", [SITES, SITES[:1]], ids=["all", "one"])
def test_no_site_may_drop_out_of_a_sum_that_all_are_needed_for(told):
    def lower(site, message):
        masking = {**message.meta["masking"], "threshold": 2 if site in told else 3}
        return Message(message.kind, {**message.meta, "masking": masking}, message.arrays)

    server = make_federation("settings", lower)
    server.agree()
    with pytest.raises(SiteError, match=r"threshold=2 of 3 sites: who may be missing|has not signed these keys"):
        server._perform("sums before training")
