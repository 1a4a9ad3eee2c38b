"""Where cells belong stays with a trained model: parts of its cells and new batches are corrected by it."""

import os
import signal

import numpy as np
import pytest
from lightning.pytorch.callbacks import Callback

from cells import SMALL, make_adata
from fedscgen.model import FedSCGEN


@pytest.fixture
def central(adata):
    """A small model, trained in one place."""
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train(2, enable_progress_bar=False)
    return model


def test_a_part_of_the_cells_is_corrected_as_among_all_of_them(central, adata):
    chosen = np.random.default_rng(0).permutation(150)[:40]
    part, whole = central.correct(adata[chosen].copy()), central.correct()[chosen]
    np.testing.assert_allclose(part.obsm["X_fedscgen"], whole.obsm["X_fedscgen"], atol=1e-4)
    expression = (cells.layers["fedscgen_corrected"].toarray() for cells in (part, whole))
    np.testing.assert_allclose(*expression, atol=1e-4)
    for column in ("fedscgen_cell_type", "fedscgen_moved", "fedscgen_label_conflict"):
        assert list(part.obs[column]) == list(whole.obs[column])


def test_cells_of_the_same_names_with_other_expression_are_new_ones(central, adata):
    other = adata[:60].copy()
    other.X = other.X * 0.5
    renamed = other.copy()
    renamed.obs_names = [f"new{i}" for i in range(60)]
    np.testing.assert_array_equal(*(central.correct(cells).obsm["X_fedscgen"] for cells in (other, renamed)))


def test_a_saved_model_corrects_a_new_batch(central, tmp_path):
    central.save(tmp_path / "model")
    newcomer = make_adata(80, n_batches=1, seed=3)
    newcomer.obs["batch"] = "new"
    loaded = FedSCGEN.load(tmp_path / "model", newcomer)
    assert loaded.references == central.references
    assert loaded.correct().obs["fedscgen_moved"].all()


def test_new_weights_have_no_old_references(central):
    assert central.references is not None
    central.load_weights(central.get_weights())
    assert central.references is None


def test_an_interrupted_training_leaves_a_model_that_can_be_used(adata):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.train(50, enable_progress_bar=False, callbacks=[Interrupt()])
    assert signal.getsignal(signal.SIGINT) is handler
    assert not model.module.training
    assert model.correct().obs["fedscgen_moved"].all()
