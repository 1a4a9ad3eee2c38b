"""What a model says of cells' types: by expression, whatever their own labels are."""

import numpy as np
import pandas as pd
import pytest
import scvi

from cells import SMALL, make_adata
from fedscgen.model import FedSCGEN


def trained_on(adata, n_epochs=1, network=SMALL, **keys):
    scvi.settings.seed = 0
    FedSCGEN.setup_anndata(adata, **keys)
    model = FedSCGEN(adata, **network)
    model.train(n_epochs, enable_progress_bar=False)
    return model


@pytest.fixture
def model():
    """A model of 450 cells, trained for five epochs."""
    return trained_on(make_adata(n_cells=450), 5)


def test_names_are_the_most_probable_ones_above_the_threshold(model):
    soft = model.predict(soft=True)
    assert list(soft.columns) == ["type0", "type1", "type2", "type3", "unknown"]
    assert list(soft.index) == list(model.adata.obs_names)
    assert soft.to_numpy().min() >= 0
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    types = soft.drop(columns="unknown")
    for threshold in (0.0, 0.5, 0.9):
        expected = types.idxmax(axis=1).where(types.max(axis=1) >= threshold, "unknown")
        assert list(model.predict(min_confidence=threshold)) == list(expected)
    assert list(model.predict()) == list(model.predict(min_confidence=0.5))
    assert (model.predict(min_confidence=0.9) == "unknown").any()


def test_the_types_are_mostly_found(model):
    true = model.adata.obs["cell_type"].astype(str).to_numpy()
    assert (model.predict(min_confidence=0.0) == true).mean() > 0.95


@pytest.mark.parametrize("as_before", [True, False])
def test_a_cells_own_label_is_not_looked_at(model, as_before):
    """One label among many tells where the batch lies, but hardly."""
    expected = model.predict(soft=True)
    landmarks = model.get_references() if as_before else None
    for cell in ("cell0", "cell7", "cell100"):
        adata = model.adata.copy()
        own = adata.obs.loc[cell, "cell_type"]
        adata.obs.loc[cell, "cell_type"] = next(name for name in ("type0", "type1") if name != own)
        predicted = model.predict(adata, soft=True, references=landmarks)
        assert np.abs(predicted.loc[cell] - expected.loc[cell]).max() < 0.05
        assert model.predict(adata, references=landmarks)[adata.obs_names.get_loc(cell)] == own


def test_what_is_predicted_is_what_correction_is_sure_of(model):
    corrected, soft = model.correct(expression=None), model.predict(soft=True)
    own = [soft.loc[cell, label] for cell, label in model.adata.obs["cell_type"].items()]
    np.testing.assert_allclose(corrected.obs["fedscgen_confidence"], own, atol=1e-6)
    adata = model.adata.copy()
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("?")
    adata.obs.iloc[::3, adata.obs.columns.get_loc("cell_type")] = "?"
    partial = trained_on(adata, 5, unlabeled_category="?")
    for threshold in (0.0, 0.5, 0.9):
        obs = partial.correct(expression=None, min_confidence=threshold).obs[::3]
        assert list(obs["fedscgen_cell_type"]) == list(partial.predict(min_confidence=threshold)[::3])
        best = partial.predict(soft=True).drop(columns="unknown").max(axis=1)[::3]
        np.testing.assert_allclose(obs["fedscgen_confidence"], best, atol=1e-6)


def test_confidence_is_missing_exactly_for_types_of_one_batch():
    adata = make_adata(n_cells=450)
    own = ((adata.obs["batch"] == "site1") & (adata.obs["cell_type"] == "type2")).to_numpy()
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(object).where(~own, "own").astype("category")
    model = trained_on(adata)
    obs = model.correct(expression=None).obs
    np.testing.assert_array_equal(obs["fedscgen_confidence"].isna(), own)
    assert list(obs["fedscgen_cell_type"]) == list(adata.obs["cell_type"])
    assert not obs["fedscgen_label_conflict"][own].any()
    assert "own" not in model.predict(soft=True).columns
    assert "own" not in set(model.predict())


def test_wrong_labels_of_real_cells_are_mostly_called_into_question(pbmc):
    adata, rng = pbmc.copy(), np.random.default_rng(0)
    true = adata.obs["cell_type"].astype(str).to_numpy()
    wrong = rng.random(adata.n_obs) < 0.1
    others = [rng.choice([name for name in np.unique(true) if name != label]) for label in true]
    adata.obs["cell_type"] = pd.Categorical(np.where(wrong, others, true))
    obs = trained_on(adata, 3, {"n_hidden": 64}).correct(expression=None).obs
    assert obs["fedscgen_label_conflict"].dtype == bool
    assert obs["fedscgen_label_conflict"][wrong].mean() > 0.7
    assert obs["fedscgen_label_conflict"][~wrong].mean() < 0.05
    assert list(obs["fedscgen_cell_type"]) == list(adata.obs["cell_type"]), "own labels stay"


def test_genes_and_cells_are_found_by_name(model):
    expected = model.predict(soft=True)
    other = model.predict(model.adata[::-1, ::-1].copy(), soft=True, batch_size=7)
    pd.testing.assert_frame_equal(other.loc[expected.index], expected, atol=1e-3)


def test_references_that_tell_no_types_are_refused(model):
    message = r"predict needs landmarks with cell types, and references of kind 'dominant' .*=model.get_references\(\)"
    by_type = model.get_references(kind="dominant")
    with pytest.raises(ValueError, match=message):
        model.predict(references=by_type)
    model.references = by_type
    with pytest.raises(ValueError, match=message):
        model.predict()
    without_labels = trained_on(make_adata(n_cells=450), labels_key=None)
    with pytest.raises(
        ValueError, match="landmarks with cell types, and these were found without labels: set the data"
    ):
        without_labels.predict()


def test_a_type_that_is_called_unknown_has_its_own_column():
    adata = make_adata(n_cells=450)
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"type3": "unknown"})
    model = trained_on(adata, 5)
    soft = model.predict(soft=True)
    assert list(soft.columns) == ["type0", "type1", "type2", "unknown", "unknown (none of these)"]
    sure = model.predict(min_confidence=0.9)
    unsure = soft.drop(columns="unknown (none of these)").max(axis=1).to_numpy() < 0.9
    np.testing.assert_array_equal(sure == "unknown (none of these)", unsure)
    assert unsure.any()


@pytest.mark.parametrize("method", ["correct", "predict"])
def test_landmarks_of_a_model_of_another_latent_size_are_refused(trained, method):
    landmarks = trained_on(make_adata(), network={**SMALL, "n_latent": 6}).get_references()
    with pytest.raises(ValueError, match="landmarks of 6 latent dimensions don't fit cells of 4: pass what was found"):
        getattr(trained, method)(references=landmarks)


def test_an_untrained_model_predicts_nothing(adata):
    FedSCGEN.setup_anndata(adata)
    with pytest.raises(RuntimeError, match="Please train the model first"):
        FedSCGEN(adata, **SMALL).predict()


def test_a_models_own_landmarks_are_taken_before_new_ones(model):
    """Those of a federation, that is: landmarks of the very cells would differ."""
    landmarks = model.get_references(model.adata[:300].copy())
    model.references = landmarks
    expected = model.predict(soft=True, references=landmarks)
    pd.testing.assert_frame_equal(model.predict(soft=True), expected)
    model.references = None
    assert np.abs(model.predict(soft=True) - expected).to_numpy().max() > 1e-6
