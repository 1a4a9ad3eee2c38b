"""Sites that come after training: a server that holds its result has them correct their cells."""

from dataclasses import replace

import numpy as np
import pytest

from cells import SMALL
from fedscgen.federation import Client, FederationSettings, InProcessTransport, Server, SiteError
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator

SETTINGS = FederationSettings(n_rounds=2, n_epochs=1, model=SMALL)


def clients_of(adata, sites):
    aggregator = PlainAggregator()
    return [Client(site, adata[adata.obs["batch"] == site].copy(), aggregator.contributor(site)) for site in sites]


@pytest.fixture
def trained(adata):
    server = Server(InProcessTransport(clients_of(adata, ["site0", "site1"])), PlainAggregator(), SETTINGS)
    server.run()
    return server


def serve(trained, clients, settings=SETTINGS):
    server = Server(InProcessTransport(clients), PlainAggregator(), settings)
    server.serve(trained.genes, trained.weights, trained.references)


def test_a_newcomer_is_corrected_as_by_the_saved_model(adata, trained, tmp_path):
    (client,) = clients_of(adata, ["site2"])
    serve(trained, [client])
    client.model.save(tmp_path / "model")
    cells = adata[adata.obs["batch"] == "site2"].copy()
    expected = FedSCGEN.load(tmp_path / "model", cells, batch_key=None).correct()
    np.testing.assert_array_equal(client.corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"])
    np.testing.assert_array_equal(client.corrected.to_df("fedscgen_corrected"), expected.to_df("fedscgen_corrected"))


def test_nothing_of_a_newcomer_leaves_it(adata, trained):
    (client,) = clients_of(adata, ["site2"])
    serve(trained, [client])
    ledger = client.ledger.to_frame()
    sent = ledger[ledger["sender"] == "site2"]
    assert list(sent["kind"]) == ["settings", "final weights and references"]
    assert set(sent["shape"]) <= {"names and settings", "no content"}


@pytest.mark.parametrize("genes", ["union", "intersection"])
def test_genes_that_a_newcomer_lacks_are_zero_only_where_the_model_is_one_of_a_union(adata, trained, genes):
    (client,) = clients_of(adata[:, adata.var_names[3:]].copy(), ["site2"])
    settings = replace(SETTINGS, genes=genes)
    if genes == "union":
        serve(trained, [client], settings)
        assert list(client.corrected.var_names) == list(adata.var_names[3:])
    else:
        with pytest.raises(SiteError, match="gene0"):
            serve(trained, [client], settings)


def test_a_site_that_was_restarted_goes_on_with_pooled_statistics_under_a_local_policy(adata):
    """Its own statistics are gone with its process; zero means and unit variances would be no one's."""
    settings = replace(SETTINGS, batchnorm="local", model={**FedSCGEN.PRESETS["scarches"], **SMALL})
    server = Server(InProcessTransport(clients_of(adata, ["site0", "site1"])), PlainAggregator(), settings)
    server.run()
    (restarted,) = clients_of(adata, ["site0"])
    serve(server, [restarted], settings)
    weights = restarted.model.get_weights()
    for name, array in server.weights.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)
