"""Correction against an independent implementation, and what it returns."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from cells import SMALL, make_adata
from fedscgen._types import LatentShifts
from fedscgen.correction import NoSharedLabelError, label_positions, move_to_landmarks
from fedscgen.model import FedSCGEN

TOLD_BY_LANDMARKS = ["fedscgen_cell_type", "fedscgen_confidence", "fedscgen_label_conflict"]


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else matrix


def scgen_batch_removal(model, adata):
    """ScGen's batch removal (Lotfollahi et al. 2019) in numpy and torch, cell type by cell type."""
    module = model.module.eval()
    batch, cell_type = adata.obs["batch"].to_numpy(), adata.obs["cell_type"].to_numpy()
    with torch.no_grad():
        latent = module.inference(torch.from_numpy(adata.X.toarray()))["z"].numpy()
        shifted = latent.astype(np.float64)
        for name in np.unique(cell_type):
            of_type = cell_type == name
            batches, counts = np.unique(batch[of_type], return_counts=True)
            if len(batches) < 2:
                continue
            largest = batches[counts.argmax()]
            target = latent[of_type & (batch == largest)].mean(axis=0)
            for b in batches:
                cells = of_type & (batch == b)
                shifted[cells] += target - latent[cells].mean(axis=0)
        return shifted, module.generative(torch.from_numpy(shifted.astype(np.float32)))["px"].numpy()


def move_by_hand(model, adata):
    """Latent vectors before and after the move to landmarks of these very batches, and the landmarks."""
    latent, landmarks = model.get_latent_representation(), model.get_references()
    codes = label_positions(adata.obs["cell_type"].array, landmarks.labels)
    batches = adata.obs["batch"].cat.codes.to_numpy()
    return latent, move_to_landmarks(latent, batches, codes, landmarks).latent.astype(np.float32), landmarks


def test_correct_equals_scgen_batch_removal(trained, adata):
    latent, decoded = scgen_batch_removal(trained, adata)
    corrected = trained.correct(references=trained.get_references(kind="dominant"), denoise=True)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], latent, atol=1e-5)
    np.testing.assert_allclose(corrected.layers["fedscgen_corrected"], decoded, atol=1e-5)


def test_correct_equals_scgen_batch_removal_on_real_cells(pbmc):
    adata = pbmc.copy()
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, n_hidden=64)
    model.train(2, enable_progress_bar=False)
    latent, decoded = scgen_batch_removal(model, adata)
    corrected = model.correct(references=model.get_references(kind="dominant"), denoise=True)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], latent, atol=1e-5)
    np.testing.assert_allclose(corrected.layers["fedscgen_corrected"], decoded, atol=1e-5)


@pytest.mark.parametrize(("kind", "added"), [("landmarks", TOLD_BY_LANDMARKS), ("dominant", [])])
def test_cells_and_annotations_stay_as_they_are(trained, adata, kind, added):
    before = adata.copy()
    corrected = trained.correct(references=trained.get_references(kind=kind))
    assert list(corrected.obs.columns) == [*before.obs.columns, *added, "fedscgen_moved"]
    for result in (corrected, adata):
        assert list(result.obs_names) == list(before.obs_names)
        assert result.obs.drop(columns=[*added, "fedscgen_moved"], errors="ignore").equals(before.obs)
        assert result.var.equals(before.var)
        assert (result.X != before.X).nnz == 0
        np.testing.assert_array_equal(result.obsm["X_given"], before.obsm["X_given"])
    assert list(adata.obs.columns) == list(before.obs.columns)
    assert "X_fedscgen" not in adata.obsm
    assert not adata.layers


def test_expression_goes_where_it_is_wanted(trained, adata):
    layer = trained.correct().layers["fedscgen_corrected"].toarray()
    np.testing.assert_array_equal(trained.correct(expression="X").X.toarray(), layer)
    np.testing.assert_array_equal(trained.correct(expression="mine").layers["mine"].toarray(), layer)
    nowhere = trained.correct(expression=None)
    assert not nowhere.layers
    assert (nowhere.X != adata.X).nnz == 0


def test_reencoded_latent_is_that_of_the_decoded_expression(trained):
    corrected = trained.correct(expression="X", denoise=True, reencode=True)
    expected = trained.get_latent_representation(corrected)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen_reencoded"], expected, atol=1e-5)


def test_chunks_do_not_matter(trained):
    whole, chunked = trained.correct(reencode=True), trained.correct(batch_size=7, reencode=True)
    for key in whole.obsm:
        np.testing.assert_allclose(whole.obsm[key], chunked.obsm[key], atol=1e-5)
    assert abs(whole.layers["fedscgen_corrected"] - chunked.layers["fedscgen_corrected"]).max() < 1e-5


@pytest.mark.parametrize("kind", ["landmarks", "dominant"])
@pytest.mark.parametrize("as_matrix", [lambda m: m.toarray(), sparse.csr_matrix, sparse.csr_array])
def test_corrected_expression_is_a_cells_own_with_what_its_shift_changes(adata, as_matrix, kind):
    adata.X = as_matrix(adata.X)
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train(2, enable_progress_bar=False)
    corrected = model.correct(references=model.get_references(kind=kind))
    layer = corrected.layers["fedscgen_corrected"]
    assert sparse.issparse(layer) == sparse.issparse(adata.X)
    latent, moved, _ = move_by_hand(model, adata)
    before, after = model._decode(latent), model._decode(corrected.obsm["X_fedscgen"] if kind == "dominant" else moved)
    own, layer = dense(adata.X), dense(layer)
    expected = np.where(own > 0, np.maximum(own + after - before, 0), 0)
    assert np.abs(layer - own).max() > 0.01
    np.testing.assert_allclose(layer, expected, atol=1e-5)


def test_expression_comes_of_the_vectors_before_they_are_scaled(trained, adata):
    """Both have four dimensions here: a decoder would take either."""
    _, moved, landmarks = move_by_hand(trained, adata)
    corrected = trained.correct(denoise=True, reencode=True)
    decoded = trained._decode(moved)
    np.testing.assert_allclose(corrected.layers["fedscgen_corrected"], decoded, atol=1e-5)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen_reencoded"], trained._encode(decoded), atol=1e-5)
    embedding = corrected.obsm["X_fedscgen"]
    np.testing.assert_allclose(embedding, landmarks.embed(moved), atol=1e-5)
    assert np.abs(trained._decode(embedding) - decoded).max() > 0.1


def test_the_embedding_has_ten_dimensions_at_most(adata):
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **{**SMALL, "n_latent": 12})
    model.train_local(1)
    for kind, n_dimensions in (("landmarks", 10), ("dominant", 12)):
        corrected = model.correct(references=model.get_references(kind=kind), expression=None)
        assert corrected.obsm["X_fedscgen"].shape == (adata.n_obs, n_dimensions)
        assert corrected.obsm["X_fedscgen"].dtype == np.float32


def test_by_default_batches_meet_at_landmarks(trained, adata):
    default, explicit = trained.correct(), trained.correct(references=trained.get_references())
    np.testing.assert_array_equal(default.obsm["X_fedscgen"], explicit.obsm["X_fedscgen"])
    uncorrected = trained.get_references().embed(trained.get_latent_representation())
    gaps, groups = [], [adata.obs["cell_type"].to_numpy(), adata.obs["batch"].to_numpy()]
    for vectors in (uncorrected, default.obsm["X_fedscgen"]):
        means = pd.DataFrame(vectors).groupby(groups).mean()
        gaps.append(means.groupby(level=0).std().to_numpy().mean())
    assert gaps[1] < 0.5 * gaps[0]


def test_cells_that_do_not_move_keep_every_value(trained, adata):
    corrected = trained.correct(references=trained.get_references(kind="dominant"))
    moved = (corrected.obsm["X_fedscgen"] != trained.get_latent_representation()).any(axis=1)
    assert 0 < moved.sum() < adata.n_obs, "the dominant batches stay"
    assert (corrected.layers["fedscgen_corrected"][~moved] != adata.X[~moved]).nnz == 0


def test_scaled_expression_keeps_its_negative_values(adata):
    adata.X = adata.X.toarray() - 1
    with pytest.warns(UserWarning, match="negative values"):
        FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train(2, enable_progress_bar=False)
    with pytest.warns(UserWarning, match="negative values"):
        layer = model.correct().layers["fedscgen_corrected"]
    assert (layer < 0).sum() > 0.5 * (adata.X < 0).sum()
    assert ((layer < 0) <= (adata.X < 0)).all()


def test_sparse_input_is_made_dense_by_chunks_only(trained, adata, monkeypatch):
    sizes = []
    original = type(adata.X).toarray

    def spy(self, *args, **kwargs):
        sizes.append(self.shape[0])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(adata.X), "toarray", spy)
    trained.correct(batch_size=32, reencode=True)
    assert sizes
    assert max(sizes) <= 32


def test_genes_are_found_by_name(trained, adata):
    rng = np.random.default_rng(0)
    permuted = adata[:, rng.permutation(adata.n_vars)].copy()
    corrected = trained.correct(permuted)
    assert list(corrected.var_names) == list(permuted.var_names)
    for denoise in (False, True):
        layers = (trained.correct(cells, denoise=denoise).to_df("fedscgen_corrected") for cells in (permuted, adata))
        first, second = layers
        np.testing.assert_allclose(first[adata.var_names], second, atol=1e-5)
    assert "_scvi_uuid" not in permuted.uns or permuted.uns["_scvi_uuid"] == adata.uns["_scvi_uuid"]


def test_genes_that_the_model_does_not_know_are_left_out(trained, adata):
    wider = make_adata(n_genes=40)
    assert list(trained.correct(wider).var_names) == list(adata.var_names)


def test_missing_genes_are_named(trained, adata):
    with pytest.raises(ValueError, match=r"2 of the model's 30 genes are missing in var_names \('gene0', 'gene1'\)"):
        trained.correct(adata[:, 2:].copy())


def test_given_shifts_are_added(trained):
    latent = trained.get_latent_representation()
    shifts = LatentShifts(("site1",), ("type2",), np.full((1, 1, 4), 3.0))
    moved = trained.correct(shifts=shifts, expression=None).obsm["X_fedscgen"] - latent
    obs = trained.adata.obs
    cells = ((obs["batch"] == "site1") & (obs["cell_type"] == "type2")).to_numpy()
    np.testing.assert_allclose(moved[cells], 3.0, atol=1e-5)
    np.testing.assert_allclose(moved[~cells], 0.0, atol=1e-6)


def test_shifts_and_references_give_the_same(trained):
    references = trained.get_references(kind="mean")
    shifts = trained.get_latent_shifts(references)
    by_shifts, by_references = trained.correct(shifts=shifts), trained.correct(references=references)
    np.testing.assert_array_equal(by_shifts.obsm["X_fedscgen"], by_references.obsm["X_fedscgen"])
    with pytest.raises(ValueError, match="either references or shifts, not both"):
        trained.correct(shifts=shifts, references=references)


def test_corrected_types_of_all_batches_meet_at_the_reference(trained):
    references = trained.get_references(kind="mean")
    corrected = trained.correct(references=references)
    for label, target in zip(references.labels, references.means, strict=True):
        for batch in corrected.obs["batch"].cat.categories:
            cells = (corrected.obs["batch"] == batch) & (corrected.obs["cell_type"] == label)
            np.testing.assert_allclose(corrected[cells.to_numpy()].obsm["X_fedscgen"].mean(axis=0), target, atol=1e-4)


def test_no_shared_type_is_an_error(adata):
    adata.obs["cell_type"] = adata.obs["batch"].astype(str) + adata.obs["cell_type"].astype(str)
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    with pytest.raises(NoSharedLabelError, match="no cell type has 1 or more cells in two batches"):
        model.correct()
    with pytest.raises(NoSharedLabelError, match="no cell type has 1 or more cells in two batches"):
        model.get_references(kind="dominant")


@pytest.mark.parametrize("labels_key", ["cell_type", None])
def test_a_single_batch_has_nothing_to_be_aligned_with(labels_key):
    adata = make_adata(n_batches=1)
    FedSCGEN.setup_anndata(adata, labels_key=labels_key)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    with pytest.raises(NoSharedLabelError, match=r"all cells are of one batch \(site0\), so there is nothing to align"):
        model.correct()


def test_labels_that_are_of_no_use_are_mentioned(trained, adata, monkeypatch):
    """One cell without a label turns an error about labels that differ everywhere into an alignment without labels."""
    adata.obs["cell_type"] = adata.obs["batch"].astype(str) + adata.obs["cell_type"].astype(str)
    adata.obs.iloc[0, adata.obs.columns.get_loc("cell_type")] = "?"
    FedSCGEN.setup_anndata(adata, unlabeled_category="?")
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    with pytest.warns(
        UserWarning, match="cells move without labels, .* check that the labels are spelled alike"
    ) as told:
        corrected = model.correct()
    assert len(told) == 1
    assert "fedscgen_cell_type" not in corrected.obs


def test_landmarks_without_types_are_mentioned_where_cells_have_labels(trained):
    adata = make_adata()
    FedSCGEN.setup_anndata(adata, labels_key=None)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    landmarks = model.get_references()
    model.correct(references=landmarks)
    with pytest.warns(UserWarning, match="cells move without labels, .* these landmarks were found without labels"):
        trained.correct(references=landmarks)


@pytest.mark.parametrize("options", [{"unlabeled": "knn"}, {"unlabeled": "leave"}, {"shrink": True}])
def test_landmarks_refuse_what_is_for_references_of_each_type(trained, options):
    with pytest.raises(ValueError, match="these are for references of each type; cells move to landmarks by one rule"):
        trained.correct(**options)
    by_type = trained.correct(references=trained.get_references(kind="dominant"), expression=None, **options)
    assert np.isfinite(by_type.obsm["X_fedscgen"]).all()


def test_indices_choose_cells(trained):
    whole = trained.get_latent_representation()
    np.testing.assert_allclose(trained.get_latent_representation(indices=[5, 2]), whole[[5, 2]], atol=1e-6)


def test_data_on_disk_are_corrected(trained, adata, tmp_path):
    from anndata import read_h5ad

    adata.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = read_h5ad(tmp_path / "cells.h5ad", backed="r")
    expected = trained.get_latent_representation()
    np.testing.assert_allclose(trained.get_latent_representation(on_disk), expected, atol=1e-5)
    on_disk.file.close()


def test_entries_that_a_sparse_matrix_repeats_are_their_sum(trained, adata):
    repeated, halves = adata.copy(), adata.X / 2
    parts = (np.repeat(halves.data, 2), np.repeat(halves.indices, 2), halves.indptr * 2)
    repeated.X = sparse.csr_matrix(parts, shape=adata.shape)
    expected, corrected = (dense(trained.correct(x).layers["fedscgen_corrected"]) for x in (adata, repeated))
    np.testing.assert_allclose(corrected, expected, atol=1e-6)
    assert repeated.X.nnz == 2 * adata.X.nnz, "the caller's matrix stays as it is"


def test_what_other_models_noted_goes_and_own_codes_stay(trained, adata):
    adata.obs["_scvi_extra"] = 1
    adata.obsm["_scvi_latent_qzm"] = np.zeros((150, 3))
    corrected = trained.correct()
    assert [key for key in corrected.obs if key.startswith("_scvi")] == ["_scvi_batch", "_scvi_labels"]
    assert not any(key.startswith("_scvi") for key in [*corrected.obsm, *corrected.uns])
    assert "_scvi_extra" in adata.obs
