"""A model that was trained and saved goes on where it was: with its losses, and the same cells that validate."""

import numpy as np
import pandas as pd
import pytest

from cells import SMALL, make_adata
from fedscgen.model import CheckpointError, FedSCGEN
from fedscgen.model._training_file import TRAINING


@pytest.fixture
def saved(adata, tmp_path):
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    train(model)
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


def train(model, **options):
    model.train(2, accelerator="cpu", enable_progress_bar=False, **options)


def names_of(model, part):
    return set(model.adata.obs_names[getattr(model._drawn_split[1], part)])


def test_history_and_split_are_kept_in_any_order_of_the_cells(saved, adata):
    model, folder = saved
    loaded = FedSCGEN.load(folder, adata[::-1].copy())
    assert loaded.history.keys() == model.history.keys()
    for name, frame in model.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], frame, check_dtype=False, check_index_type=False)
        assert loaded.history[name].index.name == frame.index.name
    validating = names_of(model, "validation")
    before = names_of(model, "train")
    train(loaded)
    assert names_of(loaded, "validation") == validating
    assert names_of(loaded, "train") == before
    assert set(loaded.adata.obs_names[loaded.validation_indices]) == validating
    assert list(loaded.history["train_loss"].index) == [0, 1, 2, 3]


def test_a_model_that_is_saved_again_keeps_them(saved, adata, tmp_path):
    model, folder = saved
    FedSCGEN.load(folder, adata.copy()).save(tmp_path / "again", prefix="b_")
    again = FedSCGEN.load(tmp_path / "again", adata.copy(), prefix="b_")
    assert names_of(again, "validation") == names_of(model, "validation")
    assert len(again.history["train_loss"]) == 2


def test_a_split_of_ones_own_is_kept(adata, tmp_path):
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    parts = [np.arange(60), np.arange(60, 80), np.arange(80, 150)]
    train(model, datasplitter_kwargs={"external_indexing": parts})
    model.save(tmp_path / "model")
    loaded = FedSCGEN.load(tmp_path / "model", adata.copy())
    for kept, given in zip(loaded._drawn_split[1], parts, strict=True):
        np.testing.assert_array_equal(kept, given)


def test_other_cells_draw_their_own(saved):
    _, folder = saved
    other = make_adata(seed=1)
    other.obs_names = [f"other{i}" for i in range(150)]
    loaded = FedSCGEN.load(folder, other)
    assert loaded._drawn_split is None
    assert len(loaded.history["train_loss"]) == 2


def test_a_sites_share_of_a_federation_tells_nothing_of_its_cells(trained, tmp_path):
    trained.save(tmp_path / "model")
    assert not (tmp_path / "model" / TRAINING).exists()


def test_no_name_of_a_cell_is_in_the_file(saved):
    _, folder = saved
    assert b"cell7" not in (folder / TRAINING).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"cells": np.zeros(3)},
        {"split": np.zeros((2, 2), dtype=np.int8)},
        {"split": np.full(150, 9, dtype=np.int8)},
        {"wishes": np.array([np.nan, 0, 0])},
        {"weights": np.zeros(3)},
        {"history.train_loss": np.zeros(7)},
        {"history.more": np.zeros(2)},
    ],
)
def test_a_damaged_file_is_refused(saved, adata, change):
    _, folder = saved
    with np.load(folder / TRAINING) as arrays:
        np.savez(folder / TRAINING, **{**arrays, **change})
    with pytest.raises(CheckpointError, match=f"holds a damaged or foreign model: {TRAINING}"):
        FedSCGEN.load(folder, adata.copy())
