"""The model seam: a federation trains whatever has the methods of a federated model."""

import numpy as np
import pytest

from cells import make_adata
from fedscgen import federation
from fedscgen.federation import CorrectionOptions, FederatedModel, FederationSettings, find_model, register_model
from fedscgen.model import CheckpointError, FedSCGEN, read_model
from pages import read_blocks
from quick import simulate

LINEAR = {"architecture": "linear", "model": {"n_latent": 3}, "n_rounds": 4, "lr": 0.1, "seed": 1, "expression": None}


@pytest.fixture(scope="module")
def linear():
    """The model of docs/extending.md."""
    names = {}
    exec(read_blocks("docs/extending.md", "python", "A new model")[0], names)  # noqa: S102  (our own page)
    return names["LinearAutoencoder"]


@pytest.mark.usefixtures("linear")
def test_the_example_of_the_page_runs(adata):
    names = {"adata": adata}
    exec(read_blocks("docs/extending.md", "python", "A new model")[1], names)  # noqa: S102  (our own page)
    assert names["result"].corrected.obsm["X_fedscgen"].shape == (150, 3)


@pytest.mark.usefixtures("linear")
def test_another_model_is_trained_through_masked_sums_as_through_plain_ones(adata):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    plain, masked = (
        simulate(adata, secure=secure, reference="mean", show_progress=False, **LINEAR)
        for secure in ("plain", "masked")
    )
    for name, weights in plain.model.get_weights().items():
        np.testing.assert_allclose(masked.model.get_weights()[name], weights, atol=1e-5)
    np.testing.assert_allclose(masked.corrected.obsm["X_fedscgen"], plain.corrected.obsm["X_fedscgen"], atol=1e-4)
    sent = masked.ledger[(masked.ledger["kind"] == "masked model weights") & (masked.ledger["receiver"] == "server")]
    assert set(sent["protection"]) == {"masked"}
    assert "sums before training" not in set(masked.ledger["kind"])


def test_another_model_learns_what_the_cells_share(linear):
    adata = make_adata(n_cells=300, n_types=3)
    result = simulate(adata, show_progress=False, **{**LINEAR, "n_rounds": 30})
    centered = adata.to_df().to_numpy() - adata.to_df().to_numpy().mean(axis=0)
    best = np.linalg.svd(centered, full_matrices=False)[2][:3]
    explained = [np.square(centered @ axes.T).sum() for axes in (result.model.get_weights()["axes"], best)]
    assert explained[0] > 0.95 * explained[1]
    losses = result.history.groupby("round")["federation_loss"].first()
    assert losses.iloc[-1] < 0.7 * losses.iloc[0]


def test_one_site_equals_local_training_of_another_model(adata, linear):
    adata.obs["site"] = "only"
    result = simulate(adata, "site", min_sites=1, batch_key="batch", show_progress=False, **LINEAR)
    linear.setup_anndata(adata, "batch", "cell_type", None, None)
    model = linear(adata, n_latent=3)
    model.load_weights(linear.initial_weights(adata.n_vars, 1, n_latent=3))
    for _ in range(4):
        model.train_local(4, lr=0.1)
    for name, weights in model.get_weights().items():
        np.testing.assert_allclose(result.model.get_weights()[name], weights, atol=1e-6)


@pytest.mark.usefixtures("linear")
def test_another_model_can_be_saved(adata, tmp_path):
    result = simulate(adata, show_progress=False, **LINEAR)
    result.model.save(tmp_path / "model")
    np.testing.assert_array_equal(read_model(tmp_path / "model").weights["axes"], result.model.get_weights()["axes"])


def test_fedscgen_is_the_default():
    assert find_model("fedscgen") is FedSCGEN
    assert FederationSettings().architecture == "fedscgen"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "quadratic"}, "unknown architecture 'quadratic': choose one of 'fedscgen'"),
        (
            {"model": {"n_latnt": 5}},
            "model: unknown setting 'n_latnt' of 'fedscgen': it has n_hidden, n_layers, n_latent",
        ),
        (
            {"architecture": "linear", "model": {"n_hidden": 5}},
            "unknown setting 'n_hidden' of 'linear': it has n_latent",
        ),
    ],
)
@pytest.mark.usefixtures("linear")
def test_unknown_models_and_their_settings_are_refused_before_anything_is_done(settings, message):
    with pytest.raises(ValueError, match=message):
        FederationSettings(**settings)


def test_a_class_that_lacks_a_method_is_refused_by_its_name():
    class Empty:
        pass

    class Half(FederatedModel):
        def n_training_cells(self):
            return 1

    with pytest.raises(ValueError, match="Empty lacks setup_anndata, initial_weights, begin"):
        register_model("empty", Empty)
    with pytest.raises(ValueError, match=r"Half lacks setup_anndata, initial_weights, genes, get_weights"):
        register_model("half", Half)


@pytest.mark.usefixtures("linear")
@pytest.mark.parametrize("genes", ["intersection", "union"])
def test_a_model_that_decodes_nothing_needs_no_options(adata, genes):
    parts = {"a": adata[:80].copy(), "b": adata[80:, 3:].copy()}
    settings = FederationSettings(architecture="linear", model={"n_latent": 3}, n_rounds=2, genes=genes, seed=0)
    result = federation.simulate(parts, "hospital", settings=settings, show_progress=False)
    assert np.isfinite(result.corrected.obsm["X_fedscgen"]).all()
    assert "fedscgen_corrected" not in result.corrected.layers


def test_a_class_that_would_fail_after_training_is_refused(linear):
    class NoOptions(linear):
        def correct(self, adata=None, *, references=None):
            return adata

    class ByPosition(linear):
        def __init__(self, adata, n_latent=5):
            super().__init__(adata, n_latent=n_latent)

    with pytest.raises(ValueError, match=r"NoOptions.correct takes no options: let it end with \*\*options"):
        register_model("no options", NoOptions)
    with pytest.raises(ValueError, match=r"ByPosition.__init__ takes 'n_latent' by position: put \* before it"):
        register_model("by position", ByPosition)
    with pytest.raises(ValueError, match="register a class"):
        register_model("function", lambda: None)


@pytest.mark.usefixtures("linear")
def test_a_saved_model_says_its_architecture(adata, tmp_path):
    result = simulate(adata, show_progress=False, **LINEAR)
    result.model.save(tmp_path / "model")
    assert read_model(tmp_path / "model").architecture == "linear"
    with pytest.raises(CheckpointError, match="holds a model of the architecture 'linear', which FedSCGEN can't load"):
        FedSCGEN.load(tmp_path / "model", adata)


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="there is architecture 'fedscgen' already"):
        register_model("fedscgen", FedSCGEN)


def test_correction_needs_no_more_than_the_options_it_is_given(adata):
    """Options reach the model as they are."""
    settings = FederationSettings(n_rounds=1, n_epochs=1, model={"n_hidden": 8}, seed=0)
    result = federation.simulate(
        adata, settings=settings, correction=CorrectionOptions(reencode=True, denoise=True), show_progress=False
    )
    assert "X_fedscgen_reencoded" in result.corrected.obsm
    assert isinstance(result.corrected.layers["fedscgen_corrected"], np.ndarray)
