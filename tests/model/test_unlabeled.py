"""Cells without a label: trained on, counted nowhere, moved as asked."""

import json

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from mudata import MuData

from cells import SMALL, make_adata
from fedscgen._types import LatentShifts
from fedscgen.correction import predict_labels
from fedscgen.model import FedSCGEN

UNKNOWN = "unknown"
TOLD = ["fedscgen_cell_type", "fedscgen_confidence", "fedscgen_label_conflict"]


def without_some_labels(adata):
    """A third of the cells lose their label: half of them are called unknown, the others nothing."""
    adata = adata.copy()
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[::6] = UNKNOWN
    labels.iloc[3::6] = np.nan
    adata.obs["cell_type"] = labels.astype("category")
    return adata


def labelled(adata):
    labels = adata.obs["cell_type"]
    return (labels.notna() & (labels != UNKNOWN)).to_numpy()


def trained_on(adata):
    scvi.settings.seed = 0
    FedSCGEN.setup_anndata(adata, unlabeled_category=UNKNOWN)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    return model


def by_type(model, adata=None, **options):
    """Corrected by references of each type."""
    return model.correct(adata, references=model.get_references(adata, kind="dominant"), **options)


def moves(model, **options):
    """How far each cell moves, by references of each type."""
    if "shifts" not in options:
        options["references"] = model.references or model.get_references(kind="dominant")
    return model.correct(expression=None, **options).obsm["X_fedscgen"] - model.get_latent_representation()


@pytest.fixture
def partial(adata):
    """Cells of which a third have no label."""
    return without_some_labels(adata)


@pytest.fixture
def model(partial):
    """A model of them, trained for an epoch."""
    return trained_on(partial)


def nearest_types(latent, adata, n_neighbors):
    """What the nearest labelled cells of each cell's batch say, cell by cell."""
    batch, label = adata.obs["batch"].to_numpy(), adata.obs["cell_type"].astype(object).to_numpy()
    known, types = labelled(adata), label.copy()
    for i in np.flatnonzero(~known):
        candidates = np.flatnonzero(known & (batch == batch[i]))
        nearest = candidates[((latent[candidates] - latent[i]) ** 2).sum(axis=1).argsort()[:n_neighbors]]
        names, counts = np.unique(label[nearest].astype(str), return_counts=True)
        types[i] = names[counts.argmax()]
    return types


def test_all_cells_are_trained_on(partial, trained):
    whole, model = trained.get_weights(), trained_on(partial).get_weights()
    for name, array in whole.items():
        np.testing.assert_array_equal(model[name], array)


def test_cells_without_a_label_count_nowhere(model, partial):
    stats = model.get_label_stats()
    assert stats.labels == ("type0", "type1", "type2", "type3")
    latent, known = model.get_latent_representation(), labelled(partial)
    for b, batch in enumerate(stats.batches):
        for k, label in enumerate(stats.labels):
            cells = known & ((partial.obs["batch"] == batch) & (partial.obs["cell_type"] == label)).to_numpy()
            assert stats.counts[b, k] == cells.sum()
            np.testing.assert_allclose(stats.means[b, k], latent[cells].mean(axis=0), atol=1e-6)
    assert model.get_references().labels == model.get_references(kind="dominant").labels == stats.labels


def test_they_move_like_most_of_their_nearest_labelled_cells(model, partial):
    corrected = by_type(model, expression=None)
    latent = model.get_latent_representation()
    expected = nearest_types(latent, partial, 15)
    assert list(corrected.obs["fedscgen_cell_type"]) == list(expected)
    assert "fedscgen_confidence" not in corrected.obs, "neighbours only vote"
    shifts = model.get_latent_shifts(model.get_references(kind="dominant"))
    rows = [shifts.batches.index(batch) for batch in partial.obs["batch"]]
    columns = [shifts.labels.index(label) for label in expected]
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], latent + shifts.shifts[rows, columns], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
def test_the_true_types_of_real_cells_are_mostly_found(pbmc):
    partial = without_some_labels(pbmc)
    model = trained_on(partial)
    model.train_local(5)
    true, hidden = pbmc.obs["cell_type"].astype(str), ~labelled(partial)
    by_guessing = true.value_counts(normalize=True).max()
    named, sure, voted = (
        corrected.obs["fedscgen_cell_type"].astype(str)[hidden]
        for corrected in (model.correct(min_confidence=0.0), model.correct(), by_type(model))
    )
    for predicted in (named, voted):  # by landmarks and by neighbours
        assert (predicted == true[hidden]).mean() > 2 * by_guessing
    right_if_sure = (sure == true[hidden])[sure != "unknown"].mean()
    assert right_if_sure > (named == true[hidden]).mean() + 0.02


def test_a_type_that_a_batch_lacks_never_appears_in_it(adata):
    partial = without_some_labels(adata)
    lacking = ((partial.obs["batch"] == "site1") & (partial.obs["cell_type"] == "type2")).to_numpy()
    partial.obs.loc[lacking, "cell_type"] = UNKNOWN
    predicted = by_type(trained_on(partial), expression=None).obs
    assert "type2" not in set(predicted.loc[predicted["batch"] == "site1", "fedscgen_cell_type"])
    assert "type2" in set(predicted["fedscgen_cell_type"])


def test_fewer_than_15_labelled_cells_are_all_asked():
    latent = np.array([[0.0], [0.1], [5.0], [5.1], [5.2], [0.05], [0.0]])
    batches, labels = np.array([0, 0, 0, 0, 0, 0, 1]), np.array([1, 1, 0, 0, 0, -1, -1])
    np.testing.assert_array_equal(predict_labels(latent, batches, labels), [1, 1, 0, 0, 0, 0, -1])
    np.testing.assert_array_equal(predict_labels(latent, batches, labels, 2), [1, 1, 0, 0, 0, 1, -1])


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
def test_on_average_they_move_like_the_labelled_cells_that_have_a_reference(adata):
    partial = without_some_labels(adata)
    partial.obs["cell_type"] = partial.obs["cell_type"].cat.add_categories("own")
    own = ((partial.obs["batch"] == "site1") & (partial.obs["cell_type"] == "type3")).to_numpy()
    partial.obs.loc[own, "cell_type"] = "own"
    model = trained_on(partial)
    moved, known = moves(model, unlabeled="mean"), labelled(partial)
    np.testing.assert_array_equal(moved[own], 0)
    for batch in ("site0", "site1", "site2"):
        of_batch = (partial.obs["batch"] == batch).to_numpy()
        expected = moved[of_batch & known & ~own].mean(axis=0)
        np.testing.assert_allclose(
            moved[of_batch & ~known], np.tile(expected, ((of_batch & ~known).sum(), 1)), atol=1e-5
        )
    assert "fedscgen_cell_type" not in by_type(model, unlabeled="mean", expression=None).obs


def test_given_shifts_move_only_batches_that_they_name(model, partial):
    shifts = LatentShifts(
        ("site1",), ("type2", "type0"), np.stack([np.full((1, 4), 3.0), np.full((1, 4), 1.0)], axis=1)
    )
    moved, known = moves(model, shifts=shifts, unlabeled="mean"), labelled(partial)
    of_site, label = (partial.obs["batch"] == "site1").to_numpy(), partial.obs["cell_type"].astype(str).to_numpy()
    counts = [(of_site & known & (label == name)).sum() for name in shifts.labels]
    np.testing.assert_allclose(moved[of_site & ~known], np.average([3.0, 1.0], weights=counts), atol=1e-5)
    np.testing.assert_array_equal(moved[~of_site], 0)


def test_they_may_stay_where_they_are(model, partial):
    moved, known = moves(model, unlabeled="leave"), labelled(partial)
    np.testing.assert_array_equal(moved[~known], 0)
    np.testing.assert_array_equal(moved[known], moves(model)[known])
    assert np.abs(moved[known]).max() > 0.01
    with pytest.raises(ValueError, match="unknown unlabeled 'drop': choose one of 'knn', 'mean'"):
        by_type(model, unlabeled="drop")


NO_LABEL = r"no cell of batch 'site2' has a label in obs\['cell_type'\]"


def without_labels_of_site2(adata):
    of_batch = (adata.obs["batch"] == "site2").to_numpy()
    adata.obs.loc[of_batch, "cell_type"] = UNKNOWN
    return of_batch


@pytest.mark.parametrize("unlabeled", ["knn", "mean"])
def test_a_batch_without_labels_stays_and_is_named(partial, unlabeled):
    of_batch = without_labels_of_site2(partial)
    with pytest.warns(UserWarning, match=NO_LABEL) as caught:
        model = trained_on(partial)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=NO_LABEL):
        corrected = by_type(model, unlabeled=unlabeled)
    latent = model.get_latent_representation()
    np.testing.assert_array_equal(corrected.obsm["X_fedscgen"][of_batch], latent[of_batch])
    if unlabeled == "knn":
        np.testing.assert_array_equal(corrected.obs["fedscgen_cell_type"].isna(), of_batch)


def test_by_landmarks_a_batch_without_labels_moves_and_its_cells_are_named():
    adata = make_adata(n_cells=450)
    types = adata.obs["cell_type"].astype(str)
    partial = without_some_labels(adata)
    of_batch = without_labels_of_site2(partial)
    with pytest.warns(UserWarning, match=f"{NO_LABEL}: with landmarks, the default, types are told"):
        model = trained_on(partial)
    with pytest.warns(UserWarning, match=NO_LABEL):
        corrected = model.correct(min_confidence=0.0)
    told = corrected.obs["fedscgen_cell_type"].astype(str)
    assert (told == types)[of_batch].mean() > 0.6
    assert corrected.obs["fedscgen_confidence"].between(0, 1).all()
    assert not corrected.obs["fedscgen_label_conflict"][~labelled(partial)].any()
    uncorrected = model.get_references().embed(model.get_latent_representation())
    assert np.linalg.norm(corrected.obsm["X_fedscgen"] - uncorrected, axis=1)[of_batch].min() > 0.01


@pytest.mark.parametrize("correct", [FedSCGEN.correct, by_type])
def test_the_users_column_stays_as_it_is(model, partial, correct):
    assert partial.obs["cell_type"].isna().any()
    corrected = correct(model)
    for result in (corrected, partial):
        pd.testing.assert_series_equal(result.obs["cell_type"], without_some_labels(make_adata()).obs["cell_type"])
    assert "fedscgen_cell_type" not in partial.obs
    known = labelled(partial)
    assert list(corrected.obs["fedscgen_cell_type"][known]) == list(partial.obs["cell_type"][known])


def test_set_up_may_be_repeated_and_counts_the_category(partial):
    for _ in range(2):
        FedSCGEN.setup_anndata(partial, unlabeled_category=UNKNOWN)
        model = FedSCGEN(partial, **SMALL)
        assert model.summary_stats.n_labels == 5
    codes, mapping = partial.obs["_scvi_labels"], model.adata_manager.get_state_registry("labels").categorical_mapping
    assert list(mapping[codes]) == list(partial.obs["cell_type"].astype(object).fillna(UNKNOWN))


def test_without_the_option_a_missing_label_is_an_error_that_names_it(partial):
    with pytest.raises(ValueError, match=r"is missing for 25 cells .* or name an unlabeled_category to keep them"):
        FedSCGEN.setup_anndata(partial)


def test_a_missing_batch_is_always_an_error(partial):
    partial.obs.loc["cell4", "batch"] = np.nan
    with pytest.raises(ValueError, match=r"obs\['batch'\] is missing for 1 cell .* leave those cells out$"):
        FedSCGEN.setup_anndata(partial, unlabeled_category=UNKNOWN)


def test_one_label_beside_the_unknown_is_still_one(adata):
    adata.obs["cell_type"] = ["B", UNKNOWN] * 75
    with pytest.warns(UserWarning, match="holds one label only, 'B'"):
        FedSCGEN.setup_anndata(adata, unlabeled_category=UNKNOWN)


@pytest.mark.parametrize("correct", [FedSCGEN.correct, by_type])
def test_labels_that_all_cells_have_change_nothing(trained, adata, correct):
    expected = correct(trained).obsm["X_fedscgen"]
    corrected = correct(trained_on(adata.copy()))
    np.testing.assert_array_equal(corrected.obsm["X_fedscgen"], expected)
    assert list(corrected.obs["fedscgen_cell_type"]) == list(adata.obs["cell_type"])


@pytest.mark.parametrize("correct", [FedSCGEN.correct, by_type])
def test_other_cells_are_corrected_alike(model, partial, correct):
    expected = correct(model)
    other = correct(model, partial[::-1, ::-1].copy())
    np.testing.assert_allclose(other.obsm["X_fedscgen"], expected.obsm["X_fedscgen"][::-1], atol=1e-5)
    assert list(other.obs["fedscgen_cell_type"]) == list(expected.obs["fedscgen_cell_type"][::-1])


def test_by_references_of_each_type_a_newcomer_needs_labels(model, tmp_path):
    model.references = model.get_references(kind="dominant")
    model.save(tmp_path / "model")
    newcomer = without_some_labels(make_adata(n_cells=60, n_batches=1))
    loaded = FedSCGEN.load(tmp_path / "model", newcomer.copy(), batch_key=None)
    assert loaded.keys.unlabeled_category == UNKNOWN
    assert not loaded.correct().obs["fedscgen_cell_type"].isna().any()
    newcomer.obs["cell_type"] = UNKNOWN
    with pytest.warns(UserWarning, match=r"no cell has a label in obs\['cell_type'\]"):
        loaded = FedSCGEN.load(tmp_path / "model", newcomer, batch_key=None)
    with pytest.warns(UserWarning, match="no cell has a label"):
        np.testing.assert_array_equal(moves(loaded), 0)


def test_older_models_are_loaded_and_take_the_option(trained, partial, tmp_path):
    trained.references = trained.get_references(kind="dominant")
    trained.save(tmp_path / "model")
    assert "unlabeled_category" not in json.loads((tmp_path / "model" / "model.json").read_text())["setup"]
    assert FedSCGEN.load(tmp_path / "model", make_adata()).keys.unlabeled_category is None
    loaded = FedSCGEN.load(tmp_path / "model", partial, unlabeled_category=UNKNOWN)
    assert not loaded.correct().obs["fedscgen_cell_type"].isna().any()


@pytest.mark.parametrize("home", ["mdata", "rna"])
def test_mudata_with_the_column_in_either_place(partial, home, tmp_path):
    expected = trained_on(partial.copy()).correct()
    rna, protein = partial.copy(), AnnData(np.ones((partial.n_obs, 2), dtype=np.float32), obs=partial.obs[[]].copy())
    mdata = MuData({"rna": rna, "protein": protein})
    if home == "mdata":
        mdata.obs[["batch", "cell_type"]] = rna.obs[["batch", "cell_type"]]
        del mdata["rna"].obs["batch"], mdata["rna"].obs["cell_type"]
    FedSCGEN.setup_mudata(mdata, unlabeled_category=UNKNOWN)
    scvi.settings.seed = 0
    model = FedSCGEN(mdata, **SMALL)
    model.train_local(1)
    model.save(tmp_path / "model")
    for corrected in (model.correct(), FedSCGEN.load(tmp_path / "model", mdata).correct()):
        pd.testing.assert_series_equal(corrected.obs["cell_type"], partial.obs["cell_type"])
        pd.testing.assert_frame_equal(corrected.obs[TOLD], expected.obs[TOLD], atol=1e-5)
        np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)


def test_a_sample_of_the_posterior_follows_torchs_random_numbers(trained):
    mean = trained.get_latent_representation()
    torch.manual_seed(1)
    first = trained.get_latent_representation(give_mean=False)
    other = trained.get_latent_representation(give_mean=False)
    torch.manual_seed(1)
    np.testing.assert_array_equal(trained.get_latent_representation(give_mean=False), first)
    assert (first != other).all()
    with torch.no_grad():
        scale = trained.module.inference(torch.from_numpy(trained.adata.X.toarray()))["qz"].scale.numpy()
    standardized = (first - mean) / scale
    assert abs(standardized.mean()) < 0.15
    assert abs(standardized.std() - 1) < 0.1
