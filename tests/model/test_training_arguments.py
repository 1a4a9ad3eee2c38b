"""Each argument of scvi-tools' training has its effect, or is refused by name before an epoch is trained."""

import numpy as np
import pytest
import scvi
from lightning.pytorch import Callback

from cells import SMALL, make_adata
from fedscgen.model import FedSCGEN


@pytest.fixture
def new(adata):
    FedSCGEN.setup_anndata(adata)
    scvi.settings.seed = 0
    return FedSCGEN(adata, **{**SMALL, "kl_weight": 0.01})


def train(model, epochs=1, **options):
    model.train(epochs, **{"accelerator": "cpu", "enable_progress_bar": False, **options})
    return model


def test_cells_are_shared_out_as_asked(new):
    train(new, train_size=0.6, validation_size=0.2, shuffle_set_split=False)
    np.testing.assert_array_equal(np.sort(new.validation_indices), np.arange(30))
    np.testing.assert_array_equal(np.sort(new.train_indices), np.arange(30, 120))
    np.testing.assert_array_equal(np.sort(new.test_indices), np.arange(120, 150))


def test_a_split_of_ones_own_is_taken(new):
    parts = [np.arange(100), np.arange(100, 120), np.arange(120, 150)]
    train(new, datasplitter_kwargs={"external_indexing": parts})
    for indices, part in zip((new.train_indices, new.validation_indices, new.test_indices), parts, strict=True):
        np.testing.assert_array_equal(np.sort(indices), part)


def test_the_divergence_warms_up_where_a_length_is_named(new):
    weights = []
    spy = Callback()
    spy.on_train_epoch_start = lambda trainer, plan: weights.append(plan.kl_weight)
    options = {"n_epochs_kl_warmup": 4, "min_kl_weight": 0.2, "max_kl_weight": 0.6}
    train(new, 3, plan_kwargs=options, callbacks=[spy])
    np.testing.assert_allclose(weights, [0.2, 0.3, 0.4])


def test_a_divergence_of_more_weight_makes_a_smaller_one(adata):
    def divergence(weight):
        FedSCGEN.setup_anndata(adata)
        scvi.settings.seed = 0
        model = train(
            FedSCGEN(adata, **{**SMALL, "kl_weight": 0.01}), 5, plan_kwargs={"max_kl_weight": weight}, lr=0.01
        )
        return float(model.history["kl_local_train"].iloc[-1, 0])

    assert divergence(10.0) < 0.9 * divergence(0.0)


def test_the_loss_to_watch_and_how_often_can_be_chosen(new):
    train(new, 6, early_stopping_monitor="elbo_validation", check_val_every_n_epoch=2, lr=0.05)
    assert len(new.history["elbo_validation"]) == 3
    assert len(new.history["elbo_train"]) == 6


def test_the_elbo_is_logged_as_its_parts(new):
    history = train(new, 2).history
    parts = history["reconstruction_loss_validation"].iloc[:, 0] + history["kl_local_validation"].iloc[:, 0]
    np.testing.assert_allclose(history["elbo_validation"].iloc[:, 0].astype(float), parts.astype(float), rtol=1e-6)


def test_arguments_come_in_the_order_of_scvi_tools(new):
    new.train(1, "cpu", 1, 0.8, enable_progress_bar=False)
    assert len(new.train_indices) == 120


def test_the_last_mini_batch_may_be_left_out(new):
    train(new, batch_size=60, datasplitter_kwargs={"drop_last": True})
    assert new.trainer.num_training_batches == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "batch_size=1: a mini-batch of one cell has no variance"),
        ({"batch_size": 0}, "batch_size=0: at least 1"),
        ({"train_size": 1.0, "early_stopping": True}, "early_stopping=True needs validation cells, and train_size=1.0"),
        ({"train_size": 1.0, "reduce_lr_on_plateau": True}, "reduce_lr_on_plateau=True needs validation cells"),
        ({"train_size": 1.0, "check_val_every_n_epoch": 1}, "check_val_every_n_epoch=1 needs validation cells"),
        ({"reduce_lr_on_plateau": True, "check_val_every_n_epoch": 2}, "reduce_lr_on_plateau follows every epoch"),
        ({"train_size": 0.8, "validation_size": 0.3}, "validation_size=0.3 beside train_size=0.8: choose .* to 0.2"),
        ({"early_stopping_monitor": "loss"}, "early_stopping_monitor='loss': choose one of 'validation_loss', 'elbo"),
        ({"load_sparse_tensor": True}, "load_sparse_tensor has no effect on this model"),
        ({"datamodule": object()}, "datamodule has no effect on this model"),
        ({"plan_config": {"lr": 1}}, "plan_config has no effect on this model: pass its entries as plan_kwargs"),
        ({"plan_kwargs": {"on_step": True}}, "on_step has no effect on this model: losses are logged once an epoch"),
        ({"plan_kwargs": {"update_only_decoder": True}}, "update_only_decoder has no effect on this model"),
        ({"plan_kwargs": {"min_kl_weight": 0.1}}, "min_kl_weight is where a warm-up begins: name its length"),
        ({"datasplitter_kwargs": {"external_indexing": [[0, 1, 2], [2, 3]]}}, "each of the 150 cells may stand in one"),
        ({"datasplitter_kwargs": {"drop_last": True}, "batch_size": 200}, "drop_last leaves no mini-batch"),
    ],
)
def test_what_would_have_no_effect_is_refused(new, options, message):
    with pytest.raises(ValueError, match=message):
        train(new, **options)
    assert not new.is_trained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stoping_patience": 3}, r"train\(\) got an unknown argument 'early_stoping_patience': did you mean"),
        ({"plan_kwargs": {"learning": 1}}, "plan_kwargs got an unknown argument 'learning'"),
    ],
)
def test_what_nobody_knows_is_refused(new, options, message):
    with pytest.raises(TypeError, match=message):
        train(new, **options)


def test_one_site_refuses_what_all_cells_refuse():
    adata = make_adata(n_batches=1)
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    with pytest.raises(ValueError, match="batch_size=1: a mini-batch of one cell"):
        model.train_local(1, batch_size=1)
    FedSCGEN(adata, **SMALL, normalization="layer").train_local(1, batch_size=1)


@pytest.mark.parametrize("stops", [True, False])
def test_a_training_without_a_logger_ends_at_the_same_weights(adata, stops):
    trained = []
    for options in ({}, {"logger": False}):
        scvi.settings.seed = 0
        FedSCGEN.setup_anndata(cells := adata.copy())
        trained.append(train(FedSCGEN(cells, **SMALL), epochs=3, early_stopping=stops, **options))
    logged, silent = trained
    assert not silent.history
    assert silent.is_trained
    np.testing.assert_array_equal(logged.get_latent_representation(), silent.get_latent_representation())
    train(silent)  # and goes on
    assert "validation_loss" in silent.history
