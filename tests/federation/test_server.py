"""Server and clients over a transport on which sites fall silent."""

import numpy as np
import pytest

from cells import SMALL
from fedscgen._types import Message
from fedscgen.federation import Client, FederationSettings, InProcessTransport, Server, SiteError
from fedscgen.secure import AggregationError, PlainAggregator

SETTINGS = FederationSettings(n_rounds=2, n_epochs=1, model=SMALL)


class Unreliable(InProcessTransport):
    """Loses a site from its n-th question on."""

    def __init__(self, clients, lost):
        super().__init__(clients)
        self.lost = lost
        self.asked = dict.fromkeys(self.sites, 0)

    def ask(self, messages):
        for site in messages:
            self.asked[site] += 1
        yield from super().ask({s: m for s, m in messages.items() if self.asked[s] <= self.lost.get(s, 99)})


def federation(adata, lost, settings=SETTINGS):
    aggregator = PlainAggregator()
    clients = [
        Client(site, adata[adata.obs["batch"] == site].copy(), aggregator.contributor(site))
        for site in adata.obs["batch"].cat.categories
    ]
    return Server(Unreliable(clients, lost), aggregator, settings), clients


def test_the_federation_goes_on_without_a_site_that_falls_silent_in_training(adata, caplog):
    server, clients = federation(adata, {"site1": 10})
    server.run()
    assert server.sites == ["site0", "site2"]
    assert "no answer from site1: the federation goes on without" in caplog.text
    assert [client.corrected is None for client in clients] == [False, True, False]
    assert np.isfinite(clients[0].corrected.obsm["X_fedscgen"]).all()


def test_a_type_left_to_one_site_is_not_opened(adata):
    """With site1 gone, only site0 holds type0, whose mean would be its own."""
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs.loc[(adata.obs["batch"] == "site2") & (adata.obs["cell_type"] == "type0"), "cell_type"] = "type1"
    server, _ = federation(adata, {})
    server.run()
    assert "type0" in server.references.labels
    server, _ = federation(adata, {"site1": 10})
    server.run()
    assert "type0" not in server.references.labels


def test_a_site_that_falls_silent_at_the_references_stops_them(adata):
    for kind in ("mean", "dominant"):
        server, clients = federation(
            adata, {"site1": 11}, FederationSettings(n_rounds=2, n_epochs=1, model=SMALL, reference=kind)
        )
        with pytest.raises(
            AggregationError, match="no answer to the task 'cell type means' from site1: nothing was op"
        ):
            server.run()
        assert all(client.corrected is None for client in clients)


def test_without_any_site_left_the_federation_ends(adata):
    server, _ = federation(adata, {"site0": 3, "site1": 3, "site2": 3})
    with pytest.raises(SiteError, match="no site is left"):
        server.run()


def test_a_client_without_settings_refuses_to_train(adata):
    _, (client, *_) = federation(adata, {})
    with pytest.raises(ValueError, match="site 'site0' has no model yet: the server must send its settings first"):
        client.handle(Message("model weights", {"task": "model weights", "round": 1}).to_bytes())


def test_a_client_refuses_unknown_questions(adata):
    _, (client, *_) = federation(adata, {})
    with pytest.raises(AggregationError, match="no answer to a message of kind 'your cells, please'"):
        client.handle(Message("your cells, please").to_bytes())
    assert list(client.ledger.to_frame()["sender"]) == ["server"], "nothing has left the site"


def test_weights_that_do_not_fit_are_refused(adata):
    server, (client, *_) = federation(adata, {})
    server.agree()
    message = Message("model weights", {"task": "model weights", "round": 1}, {"decoder.output.bias": np.zeros(2)})
    with pytest.raises(ValueError, match="these weights does not fit the model"):
        client.handle(message.to_bytes())
