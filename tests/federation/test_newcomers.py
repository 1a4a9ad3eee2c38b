"""Sites that come after training: a server that holds its result has them correct their cells."""

from dataclasses import replace

import numpy as np
import pytest

from cells import SMALL, make_adata
from fedscgen.federation import Client, FederationSettings, InProcessTransport, Server, SiteError
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator
from quick import make_client

SETTINGS = FederationSettings(n_rounds=2, n_epochs=1, model=SMALL)


def clients_of(adata, sites):
    aggregator = PlainAggregator()
    return [
        Client(site, adata[adata.obs["batch"] == site].copy(), aggregator.contributor(site), seed=i)
        for i, site in enumerate(sites)
    ]


@pytest.fixture
def landmarks():
    """450 cells, and a server that has found landmarks of those of two of three sites."""
    adata = make_adata(n_cells=450)
    settings = replace(SETTINGS, n_rounds=0)
    server = Server(InProcessTransport(clients_of(adata, ["site0", "site1"])), PlainAggregator(), settings)
    server.run()
    assert server.references.kind == "landmarks"
    return adata, server


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


@pytest.mark.parametrize("labels_key", ["cell_type", None])
def test_a_newcomer_moves_to_landmarks_with_and_without_labels(landmarks, labels_key, tmp_path):
    adata, server = landmarks
    cells = adata[adata.obs["batch"] == "site2"].copy()
    options = {"labels_key": labels_key, "min_confidence": 0.0}
    client = make_client("site2", cells, PlainAggregator().contributor("site2"), **options)
    serve(server, [client])
    obs, embedding = client.corrected.obs, client.corrected.obsm["X_fedscgen"]
    right = (obs["fedscgen_cell_type"] == cells.obs["cell_type"].astype(str)).mean()
    assert right == 1 if labels_key else right > 0.95
    assert np.median(obs["fedscgen_confidence"]) > 0.9
    home = server.references.embed(server.references.classifier.means)  # of each type, without any site's shift
    types = cells.obs["cell_type"].to_numpy()
    uncorrected = server.references.embed(client.model.get_latent_representation())
    before, after = (
        np.mean([np.linalg.norm(vectors[types == label].mean(axis=0) - place)
                 for label, place in zip(server.references.labels, home, strict=True)])
        for vectors in (uncorrected, embedding)
    )  # fmt: skip
    assert after < (0.4 if labels_key else 0.7) * before
    client.model.save(tmp_path / "model")
    loaded = FedSCGEN.load(tmp_path / "model", cells, batch_key=None)
    expected = loaded.correct(min_confidence=0.0)
    np.testing.assert_array_equal(embedding, expected.obsm["X_fedscgen"])
    assert list(obs["fedscgen_cell_type"]) == list(expected.obs["fedscgen_cell_type"])


def test_a_newcomer_is_corrected_by_landmarks_that_were_found_without_labels():
    adata = make_adata(n_cells=450)
    clients = [
        make_client(
            site, adata[adata.obs["batch"] == site].copy(), PlainAggregator().contributor(site), labels_key=None
        )
        for site in ("site0", "site1", "site2")
    ]
    server = Server(InProcessTransport(clients[:2]), PlainAggregator(), replace(SETTINGS, n_rounds=0))
    server.run()
    serve(server, clients[2:])
    uncorrected = server.references.embed(clients[2].model.get_latent_representation())
    assert np.linalg.norm(clients[2].corrected.obsm["X_fedscgen"] - uncorrected, axis=1).min() > 0.01
    assert "fedscgen_cell_type" not in clients[2].corrected.obs


def test_references_by_cell_type_say_that_a_newcomer_without_labels_needs_some(adata):
    server = Server(InProcessTransport(clients_of(adata, ["site0", "site1"])), PlainAggregator(),
                    replace(SETTINGS, reference="mean"))  # fmt: skip
    server.run()
    cells = adata[adata.obs["batch"] == "site2"].copy()
    client = make_client("site2", cells, PlainAggregator().contributor("site2"), labels_key=None)
    with pytest.raises(SiteError, match="references by cell type need cell types: set the data up with labels_key"):
        serve(server, [client])


@pytest.mark.parametrize("kind", ["landmarks", "dominant"])
def test_nothing_of_a_newcomer_leaves_it(adata, kind):
    settings = replace(SETTINGS, reference=kind)
    trained = Server(InProcessTransport(clients_of(adata, ["site0", "site1"])), PlainAggregator(), settings)
    trained.run()
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


def test_a_newcomer_that_lacks_few_genes_is_corrected_with_a_warning_and_keeps_its_own(adata, trained):
    wider = make_adata(n_genes=40)
    cells = wider[adata.obs["batch"] == "site2", wider.var_names != "gene7"].copy()
    client = make_client("site2", cells, PlainAggregator().contributor("site2"), keep_genes=True)
    with pytest.warns(UserWarning, match=r"1 of the model's 30 genes are missing in var_names \('gene7'\): taken for"):
        serve(trained, [client])
    corrected = client.corrected
    assert list(corrected.var_names) == list(cells.var_names)
    assert list(corrected.var["fedscgen_corrected"]) == [True] * 29 + [False] * 10
    np.testing.assert_array_equal(corrected.to_df("fedscgen_corrected").iloc[:, 29:], cells.to_df().iloc[:, 29:])


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
