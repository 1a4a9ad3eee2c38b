"""Training at one site: repeatable, without memory of earlier calls, and named weights in and out."""

import numpy as np
import pytest
import scvi
import torch

from cells import SMALL, make_adata
from fedscgen._types import ClientUpdate
from fedscgen.model import FedSCGEN


def new_model(adata, seed=0, **kwargs):
    scvi.settings.seed = seed
    FedSCGEN.setup_anndata(adata)
    return FedSCGEN(adata, **{**SMALL, **kwargs})


def assert_same(weights, others):
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_training_repeats_under_a_seed(adata):
    runs = [new_model(adata, seed=seed).train_local(2).weights for seed in (3, 3, 4)]
    assert_same(runs[0], runs[1])
    assert not np.array_equal(runs[0]["encoder.mean.weight"], runs[2]["encoder.mean.weight"])


def test_an_update_holds_weights_and_number_of_training_cells(adata):
    update = new_model(adata).train_local(1)
    assert isinstance(update, ClientUpdate)
    assert update.n_cells == 135
    assert all(array.dtype == np.float32 for array in update.weights.values())
    assert not any("num_batches_tracked" in name for name in update.weights)


def test_every_call_keeps_the_same_validation_cells(adata):
    model = new_model(adata)
    model.train_local(1)
    before = np.sort(model.validation_indices)
    model.train_local(1)
    np.testing.assert_array_equal(before, np.sort(model.validation_indices))
    assert len(before) == 15


def test_later_rounds_train_as_the_first_does(adata):
    """Inference in between must not leave dropout and BatchNorm switched off."""
    model = new_model(adata)
    model.train_local(1)
    model.get_latent_representation()
    before = model.get_weights()["encoder.hidden.1.1.running_mean"]
    model.train_local(1)
    assert not np.array_equal(before, model.get_weights()["encoder.hidden.1.1.running_mean"])


def test_the_best_epoch_of_the_call_is_restored(adata):
    model = new_model(adata)
    model.train_local(6, lr=0.05)
    losses = model.history["validation_loss"].iloc[:, 0].astype(float).to_numpy()
    assert losses.argmin() < 5, "a learning rate this high should spoil the last epoch"
    assert model.get_validation_loss() == pytest.approx(losses.min(), rel=1e-5)


def test_an_earlier_call_with_lower_loss_does_not_return(adata):
    model = new_model(adata)
    model.train(30, early_stopping_patience=30, enable_progress_bar=False)
    best = model.get_validation_loss()
    spoiled = {name: array + 0.5 if name.endswith("weight") else array for name, array in model.get_weights().items()}
    model.load_weights(spoiled)
    model.train_local(1)
    assert model.get_validation_loss() > best


def test_without_early_stopping_the_last_epoch_stays(adata):
    model = new_model(adata)
    model.train_local(6, lr=0.05, early_stopping=False)
    last = float(model.history["validation_loss"].iloc[-1, 0])
    assert model.get_validation_loss() == pytest.approx(last, rel=1e-5)


def test_training_stops_early(adata):
    model = new_model(adata)
    model.train(200, lr=0.05, early_stopping_patience=3, reduce_lr_on_plateau=False, enable_progress_bar=False)
    assert len(model.history["train_loss"]) < 200


def test_history_goes_on_over_calls(adata):
    model = new_model(adata)
    model.train_local(2)
    model.load_weights(model.get_weights())
    model.train_local(3)
    assert list(model.history["train_loss"].index) == [0, 1, 2, 3, 4]


def test_training_learns(adata):
    model = new_model(adata, linear_path=False)
    model.train(60, lr=0.01, enable_progress_bar=False)
    losses = model.history["reconstruction_loss_validation"].iloc[:, 0].astype(float)
    assert losses.min() < 0.5 * losses.iloc[0]


@pytest.mark.parametrize("n_cells", [4, 5, 56, 57, 112])
def test_awkward_numbers_of_cells_train(n_cells):
    """A last mini-batch of one cell has no variance for BatchNorm."""
    adata = make_adata(n_cells=n_cells, n_batches=1)
    update = new_model(adata).train_local(1)
    assert all(np.isfinite(array).all() for array in update.weights.values())


def test_all_cells_may_train(adata):
    model = new_model(adata)
    assert model.train_local(1, train_size=1.0).n_cells == 150
    assert np.isnan(model.get_validation_loss(train_size=1.0))
    with pytest.raises(ValueError, match=r"train_size=1\.5: choose a share above 0"):
        model.train_local(1, train_size=1.5)
    with pytest.raises(ValueError, match=r"train_size=0\.01 leaves 2 of 150 cells to train on"):
        model.train_local(1, train_size=0.01)
    model.train(2, train_size=1.0, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 3


def test_loss_is_mean_squared_error_plus_weighted_kl(adata):
    model = new_model(adata, kl_weight=0.01)
    model.module.eval()
    x = torch.from_numpy(adata.X[:20].toarray())
    with torch.inference_mode():
        _, _, loss = model.module({"X": x})
        mean, log_variance = model.module.encoder(x)
        decoded = model.module.decoder(mean)
    variance = (torch.exp(0.5 * log_variance) + 1e-4) ** 2
    kl = 0.5 * (variance + mean**2 - 1 - torch.log(variance)).sum()
    expected = torch.nn.functional.mse_loss(decoded, x) + 0.01 * kl
    assert float(loss.loss) == pytest.approx(float(expected), rel=1e-5)


def test_weights_survive_a_round_trip_by_name(adata):
    source, target = new_model(adata, seed=1), new_model(adata, seed=2)
    source.train_local(1)
    target.load_weights(source.get_weights())
    assert_same(source.get_weights(), target.get_weights())
    np.testing.assert_array_equal(source.get_latent_representation(), target.get_latent_representation())


def test_local_policy_keeps_own_batchnorm_statistics(adata):
    source, target = new_model(adata, seed=1), new_model(adata, seed=2)
    source.train_local(1)
    target.train_local(1)
    own = target.get_weights()
    target.load_weights(source.get_weights(), batchnorm="local")
    loaded = target.get_weights()
    for name, array in loaded.items():
        expected = own if name.endswith(("running_mean", "running_var")) else source.get_weights()
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def _misshapen(weights):
    return {**weights, "decoder.output.bias": np.zeros(3, dtype=np.float32)}


def _renamed(weights):
    return {name.replace("output", "exit"): array for name, array in weights.items()}


def _not_finite(weights):
    return {**weights, "decoder.output.bias": weights["decoder.output.bias"] * np.nan}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_misshapen, r"these weights: decoder.output.bias has shape \(3,\), expected \(30,\)"),
        (_renamed, "these weights: names differ from the model's: decoder.exit.bias"),
        (_not_finite, "these weights: decoder.output.bias holds NaN or inf"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(adata, spoil, message):
    model = new_model(adata)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.load_weights(spoil(before))
    assert_same(before, model.get_weights())


def test_untrained_models_say_so(adata):
    with pytest.raises(RuntimeError, match="untrained model"):
        new_model(adata).get_latent_representation()


def test_training_begins_at_principal_components(adata):
    model = new_model(adata)
    FedSCGEN.begin_together([model], train_size=1.0)
    model.is_trained_ = True
    cells = adata.X.toarray().astype(np.float64)
    _, _, axes = np.linalg.svd(cells - cells.mean(axis=0), full_matrices=False)
    scores = (cells - cells.mean(axis=0)) @ axes[: SMALL["n_latent"]].T
    latent = model.get_latent_representation()
    np.testing.assert_allclose(np.abs(np.corrcoef(latent.T, scores.T)[4:, :4]), np.eye(4), atol=1e-3)
    decoded = cells.mean(axis=0) + scores @ axes[: SMALL["n_latent"]]
    np.testing.assert_allclose(model._decode(latent), decoded, atol=1e-3)


def test_training_goes_on_from_where_it_began(adata):
    model = new_model(adata)
    model.train(2, enable_progress_bar=False)
    axes = model.get_weights()["linear_path.axes"]
    assert axes.any()
    model.train(2, enable_progress_bar=False)
    np.testing.assert_array_equal(model.get_weights()["linear_path.axes"], axes)


def test_sites_begin_together_where_all_their_cells_would(adata):
    sites = [new_model(adata[adata.obs["batch"] == batch].copy()) for batch in adata.obs["batch"].cat.categories]
    whole = new_model(adata)
    FedSCGEN.begin_together(sites, train_size=1.0)
    FedSCGEN.begin_together([whole], train_size=1.0)
    for site in sites:
        np.testing.assert_allclose(
            site.get_weights()["linear_path.axes"], whole.get_weights()["linear_path.axes"], atol=1e-5
        )


def test_a_network_without_a_linear_path_begins_at_random(adata):
    model = new_model(adata, linear_path=False)
    before = model.get_weights()
    FedSCGEN.begin_together([model])
    for name, array in model.get_weights().items():
        np.testing.assert_array_equal(array, before[name])
    assert not any("linear_path" in name for name in before)


def test_a_proximal_weight_holds_training_near_its_beginning(adata):
    moved = {}
    for weight in (0.0, 100.0):
        scvi.settings.seed = 0
        model = new_model(adata)
        FedSCGEN.begin_together([model])
        before = model.get_weights()
        after = model.train_local(3, proximal_weight=weight, early_stopping=False).weights
        names = [name for name in before if name.endswith("weight")]
        moved[weight] = sum(float(((after[name] - before[name]) ** 2).sum()) for name in names)
    assert moved[100.0] < 0.5 * moved[0.0]


def test_layer_normalization_leaves_no_statistics_of_other_cells(adata):
    model = new_model(adata, normalization="layer")
    model.train(1, enable_progress_bar=False)
    assert not any("running" in name for name in model.get_weights())
    with pytest.raises(ValueError, match="unknown normalization 'group': choose one of 'batch', 'layer'"):
        new_model(adata, normalization="group")
