"""Federations of no round: principal components, or a model that is given, and the correction alone."""

import numpy as np
import pytest

from cells import SMALL
from fedscgen.federation import FederationSettings, InProcessTransport, Server, simulate
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator
from quick import QUICK, make_client
from quick import simulate as simulate_quickly

UNTRAINED = {**QUICK, "n_rounds": 0}
RANDOM = {**SMALL, "linear_path": False}


@pytest.fixture(autouse=True)
def without_training(monkeypatch):
    """What trains fails."""
    monkeypatch.setattr(FedSCGEN, "train_local", None)


@pytest.mark.parametrize(
    ("options", "n_sums"),
    [
        ({}, {"sums before training": 2, "holders of cell types": 1, "sums near landmarks": 8}),
        ({"labels_key": None}, {"sums before training": 2, "sums near landmarks": 11}),
        ({"reference": "mean"}, {"sums before training": 2, "holders of cell types": 1, "cell type means": 1}),
        (
            {"reference": "mean", "early_stopping_patience": 2},  # there is no loss that could stop improving
            {"sums before training": 2, "holders of cell types": 1, "cell type means": 1},
        ),
    ],
)
def test_a_site_answers_so_many_questions(adata, options, n_sums):
    ledger = simulate_quickly(adata, **options, **UNTRAINED).ledger
    other = {"genes and cell types": 1, "settings": 1, "final weights and references": 1}
    for site in ("site0", "site1", "site2"):
        for column in ("sender", "receiver"):
            assert ledger.loc[ledger[column] == site, "kind"].value_counts().to_dict() == n_sums | other


def test_there_is_no_history_and_cells_are_corrected(adata):
    result = simulate_quickly(adata, **UNTRAINED)
    assert result.history.empty
    assert list(result.history.columns)[:3] == ["site", "round", "epoch"]
    assert np.isfinite(result.corrected.obsm["X_fedscgen"]).all()
    assert np.isfinite(result.corrected.layers["fedscgen_corrected"].data).all()


def test_the_latent_vectors_are_principal_components(adata):
    """Of the cells that aren't kept for validation: nearly those of all."""
    result = simulate_quickly(adata, **UNTRAINED)
    values = adata.X.toarray() - adata.X.toarray().mean(axis=0)
    exact = np.linalg.svd(values, full_matrices=False)[2][: SMALL["n_latent"]]
    axes = result.model.get_weights()["linear_path.axes"]
    directions = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    assert np.linalg.norm(exact @ directions.T) ** 2 / SMALL["n_latent"] > 0.9
    latent = result.model.get_latent_representation()
    fit = np.linalg.lstsq(np.column_stack([adata.X.toarray(), np.ones(adata.n_obs)]), latent)[1]
    assert fit.max() < 1e-6, "a linear map of expression"


def test_the_preset_components_is_no_round(adata):
    assert FederationSettings.from_preset("components") == FederationSettings(n_rounds=0)
    named = simulate(adata, settings="components", show_progress=False)
    settings = FederationSettings(n_rounds=0, seed=named.settings.seed)
    again = simulate(adata, settings=settings, show_progress=False)
    np.testing.assert_array_equal(named.corrected.obsm["X_fedscgen"], again.corrected.obsm["X_fedscgen"])


class Recorded(InProcessTransport):
    """Keeps the kinds of questions."""

    def __init__(self, clients):
        super().__init__(clients)
        self.kinds = []

    def ask(self, messages):
        self.kinds += {message.kind for message in messages.values()}
        yield from super().ask(messages)


def make_server(adata, settings, memory=None):
    aggregator = PlainAggregator()
    clients = [
        make_client(
            site,
            adata[adata.obs["batch"] == site].copy(),
            aggregator.contributor(site),
            memory=None if memory is None else memory / site,
        )
        for site in adata.obs["batch"].cat.categories
    ]
    return Server(Recorded(clients), aggregator, settings), clients


def test_a_model_that_would_stay_random_is_refused_before_anything_but_genes_was_asked(adata):
    server, clients = make_server(adata, FederationSettings(n_rounds=0, model=RANDOM))
    with pytest.raises(ValueError, match=r"n_rounds=0 trains nothing, .*random weights: .*\(linear_path=True\)"):
        server.run()
    assert server._transport.kinds == ["genes and cell types"]
    for client in clients:
        sent = client.ledger.to_frame().query("sender != 'server'")
        assert set(sent["shape"]) == {"names and settings"}


def test_a_given_model_needs_no_training(adata, tmp_path, monkeypatch):
    monkeypatch.undo()
    trained = simulate_quickly(adata, **{**QUICK, "model": RANDOM}).model
    trained.save(tmp_path / "model")
    result = simulate_quickly(adata, init_model=tmp_path / "model", **{**UNTRAINED, "model": RANDOM})
    for name, array in trained.get_weights().items():
        np.testing.assert_array_equal(result.model.get_weights()[name], array, err_msg=name)
    assert "sums before training" not in set(result.ledger["kind"])


def test_it_goes_on_from_its_memory_without_asking_again(adata, tmp_path):
    settings = FederationSettings(n_rounds=0, model=SMALL, seed=0)
    first, _ = make_server(adata, settings, tmp_path)
    first.run(memory=tmp_path / "run")
    again, clients = make_server(adata, settings, tmp_path)
    again.run(memory=tmp_path / "run")
    assert again._transport.kinds == ["genes and cell types", "final weights and references"]
    assert again.references.to_json() == first.references.to_json()
    assert all(client.corrected is not None for client in clients)
