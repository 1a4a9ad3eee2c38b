"""What a scvi-tools model promises its users, as the inherited classes have it; what other files test is left out."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.model import SCVI
from scvi.model.base import BaseModelClass, VAEMixin

from cells import SMALL, make_adata
from fedscgen.model import FedSCGEN

INHERITED = [name for name in dir(BaseModelClass) if not name.startswith("_")]


@pytest.fixture(scope="module")
def model():
    """A model that was trained for two epochs and that no test changes."""
    FedSCGEN.setup_anndata(adata := make_adata())
    model = FedSCGEN(adata, **SMALL)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.mark.parametrize("name", INHERITED)
def test_every_public_name_of_the_base_class_is_there(model, name):
    assert hasattr(model, name)


@pytest.mark.parametrize("name", [name for name in dir(VAEMixin) if not name.startswith("_")])
def test_every_public_name_of_an_autoencoder_is_there(name):
    assert callable(getattr(FedSCGEN, name))


@pytest.mark.parametrize(
    "name", ["get_latent_representation", "get_elbo", "get_reconstruction_error", "get_marginal_ll"]
)
def test_what_scvi_has_keyword_only_is_so_here(name):
    kinds = [
        {p.name for p in inspect.signature(getattr(kind, name)).parameters.values() if p.kind == p.KEYWORD_ONLY}
        for kind in (FedSCGEN, SCVI)
    ]
    theirs = set(inspect.signature(getattr(SCVI, name)).parameters)
    assert kinds[0] & theirs <= kinds[1]


def test_a_new_model_is_not_trained_and_says_so():
    FedSCGEN.setup_anndata(adata := make_adata())
    new = FedSCGEN(adata, **SMALL)
    assert new.is_trained is False
    assert not new.history
    assert new.train_indices is None


def test_a_model_needs_data_that_are_set_up(adata):
    with pytest.raises(ValueError, match=r"set up your AnnData with FedSCGEN\.setup_anndata first"):
        FedSCGEN(adata)


def test_a_trained_model_is_trained(model):
    assert model.is_trained is True
    assert isinstance(model.summary_string, str)
    assert "n_latent: 4" in model.summary_string


def test_history_is_frames_by_epoch(model):
    for name in ("validation_loss", "elbo_train", "elbo_validation"):
        assert isinstance(model.history[name], pd.DataFrame)
        assert len(model.history[name]) == 2


def test_cells_are_divided_into_training_and_validation(model):
    train, validation = model.train_indices, model.validation_indices
    assert sorted([*train, *validation]) == list(range(150))
    assert len(model.test_indices) == 0


def test_the_registry_tells_the_set_up(model):
    registry = model.registry
    assert registry["model_name"] == "FedSCGEN"
    assert registry["setup_method_name"] == "setup_anndata"
    assert registry["setup_args"]["batch_key"] == "batch"
    assert set(registry["field_registries"]) == {"X", "batch", "labels"}


@pytest.mark.parametrize("key", ["X", "batch", "labels"])
def test_registered_data_are_given_by_their_keys(model, key):
    values = model.get_from_registry(model.adata, key)
    assert values.shape[0] == 150
    assert set(model.get_state_registry(key)) == set(model.registry["field_registries"][key]["state_registry"])


def test_the_manager_is_scvi_tools_own(model):
    manager = model.adata_manager
    assert isinstance(manager, AnnDataManager)
    assert model.get_anndata_manager(model.adata) is manager
    assert manager.adata is model.adata
    assert manager.summary_stats["n_cells"] == 150
    assert manager.summary_stats["n_batch"] == 3
    assert manager.summary_stats["n_labels"] == 4
    assert set(manager.data_registry) == {"X", "batch", "labels"}


def test_other_data_can_be_required_to_be_set_up(model):
    assert model.get_anndata_manager(make_adata(seed=2)) is None
    with pytest.raises(ValueError, match="set up"):
        model.get_anndata_manager(make_adata(seed=2), required=True)


def test_other_managers_can_be_forgotten_and_the_models_own_stays(model):
    manager = model.adata_manager
    model.deregister_manager()
    assert model.get_anndata_manager(model.adata) is manager
    with pytest.raises(ValueError, match="Please set up your AnnData"):
        model.deregister_manager(make_adata(seed=2))


def test_fields_are_transferred_to_new_data(model):
    manager = model.adata_manager.transfer_fields(make_adata(60, seed=2))
    assert manager.summary_stats["n_batch"] == 3


def test_new_batches_are_refused_unless_they_may_extend(model):
    other = make_adata(60, seed=2)
    other.obs["batch"] = "new"
    with pytest.raises(ValueError, match="Category new not found in source registry"):
        model.adata_manager.transfer_fields(other)
    extended = model.adata_manager.transfer_fields(other, extend_categories=True)
    assert extended.summary_stats["n_batch"] == 4


def test_var_names_are_the_genes(model):
    assert list(model.get_var_names()) == list(model.adata.var_names) == model.genes
    assert model.get_setup_arg("labels_key") == "cell_type"


def test_the_device_is_torchs_and_can_be_changed(model):
    assert model.device == torch.device("cpu")
    model.to_device("cpu")
    assert next(model.module.parameters()).device.type == "cpu"


def test_setting_data_up_again_keeps_the_cells(model):
    adata = make_adata()
    before = adata.copy()
    for _ in range(2):
        FedSCGEN.setup_anndata(adata)
    np.testing.assert_array_equal(adata.X.toarray(), before.X.toarray())
    assert set(before.obs) <= set(adata.obs)
    assert "_scvi_uuid" in adata.uns
    assert "_scvi_manager_uuid" in adata.uns


def test_models_of_the_same_data_are_independent():
    FedSCGEN.setup_anndata(adata := make_adata())
    first, second = FedSCGEN(adata, **SMALL), FedSCGEN(adata, **SMALL)
    first.train(1, accelerator="cpu", enable_progress_bar=False)
    assert first.is_trained
    assert not second.is_trained


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_training_takes_lightnings_arguments(accelerator):
    FedSCGEN.setup_anndata(adata := make_adata())
    one = FedSCGEN(adata, **SMALL)
    one.train(
        max_epochs=1, accelerator=accelerator, devices=1, train_size=0.8, batch_size=32,
        enable_progress_bar=False,
    )  # fmt: skip
    assert len(one.train_indices) == 120


@pytest.mark.parametrize("indices", [[3, 1, 2], np.arange(150) < 3, np.array([0, 5])])
def test_cells_are_chosen_by_positions_or_a_mask(model, indices):
    chosen = np.arange(150)[indices]
    np.testing.assert_allclose(
        model.get_latent_representation(indices=indices), model.get_latent_representation()[chosen], atol=1e-5
    )


def test_a_model_loads_with_other_data_and_with_its_own(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    own = FedSCGEN.load(tmp_path / "model")
    other = FedSCGEN.load(tmp_path / "model", adata=make_adata(60, seed=4))
    assert own.is_trained
    assert other.is_trained
    assert own.adata.n_obs == 150
    assert other.adata.n_obs == 60
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)
    assert [path.name for path in (tmp_path / "model").glob("*.h5ad")] == []


def test_cells_of_fewer_genes_in_query_data_are_padded(model):
    query = make_adata(40, seed=5)[:, :25].copy()
    prepared = FedSCGEN.prepare_query_anndata(query, model, inplace=False)
    assert list(prepared.var_names) == model.genes


def test_registry_keys_are_scvi_tools_own(model):
    assert REGISTRY_KEYS.X_KEY in model.adata_manager.data_registry
