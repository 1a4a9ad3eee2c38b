"""Saved models: whole, harmless to read, and of use to sites that never trained."""

import json
import re

import numpy as np
import pytest
from mudata import MuData

from cells import SMALL, make_adata
from fedscgen.model import CheckpointError, FedSCGEN, read_model, write_model


def cells_with_a_newcomer():
    """300 cells of two batches, and 150 of a third that the model hasn't seen."""
    adata = make_adata(n_cells=450)
    new = (adata.obs["batch"] == "site2").to_numpy()
    newcomer = adata[new].copy()
    del newcomer.obs["batch"]
    return adata[~new].copy(), newcomer


@pytest.mark.parametrize("kind", ["landmarks", "dominant", "mean"])
def test_a_loaded_model_does_what_the_saved_one_did(trained, adata, tmp_path, kind):
    trained.references = trained.get_references(kind=kind)
    trained.save(tmp_path / "model")
    loaded = FedSCGEN.load(tmp_path / "model", adata.copy())
    np.testing.assert_array_equal(trained.get_latent_representation(), loaded.get_latent_representation())
    assert loaded.references.kind == kind
    assert loaded.references.to_json() == trained.references.to_json()
    np.testing.assert_array_equal(trained.correct().obsm["X_fedscgen"], loaded.correct().obsm["X_fedscgen"])
    loaded.train_local(1)


def test_a_new_site_corrects_itself(trained, tmp_path):
    trained.references = trained.get_references(kind="dominant")
    trained.save(tmp_path / "model")
    newcomer = make_adata(n_cells=60, n_batches=1, seed=0)[:, ::-1].copy()
    del newcomer.obs["batch"]
    corrected = FedSCGEN.load(tmp_path / "model", newcomer, batch_key=None).correct()
    for label, target in zip(trained.references.labels, trained.references.means, strict=True):
        cells = (corrected.obs["cell_type"] == label).to_numpy()
        np.testing.assert_allclose(corrected.obsm["X_fedscgen"][cells].mean(axis=0), target, atol=1e-4)


@pytest.mark.parametrize("labels_key", ["cell_type", None])
def test_a_new_site_moves_near_its_types_with_and_without_labels(tmp_path, labels_key):
    old, newcomer = cells_with_a_newcomer()
    FedSCGEN.setup_anndata(old)
    model = FedSCGEN(old, **SMALL)
    model.train(5, enable_progress_bar=False)
    model.references = model.get_references()
    model.save(tmp_path / "model")
    types = newcomer.obs["cell_type"].astype(str).to_numpy()
    loaded = FedSCGEN.load(tmp_path / "model", newcomer, batch_key=None, labels_key=labels_key)
    assert loaded.references.to_json() == model.references.to_json()
    corrected = loaded.correct()
    homes = model.correct()
    before = model.references.embed(loaded.get_latent_representation())
    distances = np.zeros(2)
    for label in model.references.labels:
        home = homes.obsm["X_fedscgen"][(old.obs["cell_type"] == label).to_numpy()].mean(axis=0)
        means = [vectors[types == label].mean(axis=0) for vectors in (before, corrected.obsm["X_fedscgen"])]
        distances += np.linalg.norm(np.stack(means) - home, axis=1)
    assert distances[1] < (0.4 if labels_key else 0.7) * distances[0]
    assert (loaded.predict(min_confidence=0.0) == types).mean() > 0.9
    told = corrected.obs["fedscgen_cell_type"].astype(str)
    assert (told == types).all() if labels_key else (told == types).mean() > 0.8


def test_a_view_is_copied(trained, adata, tmp_path):
    trained.save(tmp_path / "model")
    view = adata[::2]
    loaded = FedSCGEN.load(tmp_path / "model", view)
    np.testing.assert_allclose(loaded.get_latent_representation(), trained.get_latent_representation()[::2], atol=1e-6)
    assert view.is_view


def test_nothing_of_the_cells_is_saved(trained, tmp_path):
    trained.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.npz"]
    text = (tmp_path / "model" / "model.json").read_text()
    assert "cell7" not in text
    assert "site1" not in text
    assert "type2" not in text


def test_data_are_saved_on_request(trained, tmp_path):
    trained.save(tmp_path / "model", save_anndata=True)
    loaded = FedSCGEN.load(tmp_path / "model")
    np.testing.assert_array_equal(trained.get_latent_representation(), loaded.get_latent_representation())


def test_without_data_loading_says_what_to_pass(trained, tmp_path):
    trained.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"holds no data: pass the site's own as load\(dir_path, adata\)"):
        FedSCGEN.load(tmp_path / "model")


@pytest.mark.parametrize("permuted", [False, True])
def test_mudata_models_are_saved(adata, tmp_path, permuted):
    mdata = MuData({"rna": adata})
    FedSCGEN.setup_mudata(mdata)
    model = FedSCGEN(mdata, **SMALL)
    model.train_local(1)
    model.save(tmp_path / "model", save_anndata=True)
    other = MuData({"rna": adata[:, ::-1].copy()}) if permuted else None
    loaded = FedSCGEN.load(tmp_path / "model", other)
    np.testing.assert_allclose(model.get_latent_representation(), loaded.get_latent_representation(), atol=1e-5)


def test_an_existing_folder_is_replaced_only_on_request(trained, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists: choose another folder or set overwrite=True"):
        trained.save(tmp_path / "model")
    assert (tmp_path / "model" / "precious.txt").read_text() == "mine"
    trained.save(tmp_path / "model", overwrite=True)
    assert not (tmp_path / "model" / "precious.txt").exists()


def test_a_save_that_fails_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        trained.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def _no_folder(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _truncated_weights(folder):
    path = folder / "weights.npz"
    path.write_bytes(path.read_bytes()[:100])


def _broken_json(folder):
    (folder / "model.json").write_text("{")


def _other_format(folder):
    (folder / "model.json").write_text('{"format": "something else"}')


def _no_weights(folder):
    (folder / "weights.npz").unlink()


def _other_weights(folder):
    np.savez(folder / "weights.npz", a=np.zeros(3))


def _missing_entry(folder):
    content = json.loads((folder / "model.json").read_text())
    del content["genes"]
    (folder / "model.json").write_text(json.dumps(content))


def _pickled(folder):
    np.savez(folder / "weights.npz", a=np.array([{"code": print}], dtype=object))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_folder, "holds no FedSCGEN model: model.json is missing"),
        (_no_weights, "holds no FedSCGEN model: weights.npz is missing"),
        (_truncated_weights, "holds a damaged or foreign model"),
        (_broken_json, "holds a damaged or foreign model"),
        (_missing_entry, "holds a damaged or foreign model"),
        (_pickled, "holds a damaged or foreign model"),
        (_other_format, "has format 'something else', expected 'fedscgen model 1'"),
        (_other_weights, "weights.npz does not fit model.json"),
    ],
)
def test_damaged_and_foreign_folders_are_refused(trained, adata, tmp_path, spoil, message):
    trained.save(tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(CheckpointError, match=re.escape(message)):
        FedSCGEN.load(tmp_path / "model", adata.copy())


def test_those_without_cells_write_what_a_site_loads(trained, tmp_path):
    trained.save(tmp_path / "model")
    saved = read_model(tmp_path / "model")
    write_model(tmp_path / "again", saved)
    loaded = FedSCGEN.load(tmp_path / "again", trained.adata.copy())
    for name, array in trained.get_weights().items():
        np.testing.assert_array_equal(loaded.get_weights()[name], array)
    assert loaded.genes == trained.genes
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_model(tmp_path / "again", saved)
