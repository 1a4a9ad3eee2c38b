"""What scvi-tools' users expect of a model, where it isn't this package's own."""

import inspect

import anndata
import numpy as np
import pytest
from anndata.experimental import AnnCollection
from mudata import MuData
from scvi.model import SCVI
from scvi.model.base import BaseModelClass

from cells import SMALL, make_adata
from fedscgen.model import CheckpointError, FedSCGEN


def positions(function):
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("name", ["save", "load", "train", "get_latent_representation", "get_elbo", "get_marginal_ll"])
def test_arguments_come_in_scvi_tools_order(name):
    theirs, ours = positions(getattr(SCVI, name)), positions(getattr(FedSCGEN, name))
    shared = [argument for argument in theirs if argument in ours]
    assert shared == [argument for argument in ours if argument in theirs]
    assert ours[: len(shared)] == theirs[: len(shared)] or name == "train"


def test_the_set_up_is_shown(trained, capsys):
    trained.view_anndata_setup()
    assert "FedSCGEN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("get_normalized_expression", r"layers\['fedscgen_corrected'\]"),
        ("differential_abundance", r"obsm\['X_fedscgen'\]"),
        ("get_aggregated_posterior", "return_dist=True"),
        ("prepare_query_mudata", r"prepare_query_anndata\("),
        ("convert_legacy_save", "read_published_weights"),
    ],
)
def test_what_means_nothing_here_says_what_to_do(trained, method, remedy):
    with pytest.raises(NotImplementedError, match=remedy):
        getattr(trained, method)()


def test_a_saved_model_tells_what_it_was_set_up_with(trained, tmp_path, capsys):
    trained.save(tmp_path / "model")
    registry = FedSCGEN.load_registry(tmp_path / "model")
    assert registry["model_name"] == "FedSCGEN"
    assert registry["setup_method_name"] == "setup_anndata"
    assert registry["setup_args"] == {"batch_key": "batch", "labels_key": "cell_type", "layer": None}
    assert registry["var_names"] == trained.genes
    FedSCGEN.view_setup_args(tmp_path / "model")
    assert "cell_type" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="holds no FedSCGEN model"):
        FedSCGEN.load_registry(tmp_path / "none")


def test_two_models_share_a_folder_by_their_prefixes(trained, adata, tmp_path):
    folder = tmp_path / "models"
    trained.save(folder, prefix="a_", save_anndata=True, compression="gzip")
    trained.save(folder, prefix="b_", overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a_adata.h5ad", "a_model.json", "a_weights.npz", "b_model.json", "b_weights.npz",
    ]  # fmt: skip
    assert FedSCGEN.load_registry(folder, "b_") == FedSCGEN.load_registry(folder, prefix="a_")
    for loaded in (FedSCGEN.load(folder, prefix="a_"), FedSCGEN.load(folder, adata.copy(), prefix="b_")):
        np.testing.assert_array_equal(loaded.get_latent_representation(), trained.get_latent_representation())
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        FedSCGEN.load(folder, adata.copy())
    with pytest.raises(FileExistsError):
        trained.save(folder, prefix="c_")


@pytest.mark.parametrize("prefix", ["a/b", "../a", ".", ".hidden", "/a"])
def test_a_prefix_that_leaves_the_folder_is_refused(trained, tmp_path, prefix):
    with pytest.raises(ValueError, match="names of files can't begin so"):
        trained.save(tmp_path / "model", prefix=prefix)
    assert not list(tmp_path.iterdir())


def test_what_saving_and_loading_cannot_honour_is_refused(trained, adata, tmp_path):
    with pytest.raises(ValueError, match="save_kwargs have no effect"):
        trained.save(tmp_path / "model", save_kwargs={"pickle_protocol": 4})
    trained.save(tmp_path / "model")
    with pytest.raises(TypeError, match="'backup_url' here that has an effect; there are batch_key"):
        FedSCGEN.load(tmp_path / "model", adata.copy(), backup_url="https://example.org")
    loaded = FedSCGEN.load(tmp_path / "model", adata.copy(), accelerator="cpu", device=1)
    assert loaded.device.type == "cpu"


def test_query_data_are_corrected_as_a_loaded_model_corrects_them(trained, tmp_path):
    trained.references = trained.get_references()
    trained.save(tmp_path / "model")
    query = make_adata(n_cells=60, n_batches=1, seed=3)[:, ::-1].copy()
    del query.obs["batch"]
    given = [trained, tmp_path / "model", str(tmp_path / "model")]
    loaded = [FedSCGEN.load_query_data(query.copy(), reference, batch_key=None) for reference in given]
    corrected = [model.correct().obsm["X_fedscgen"] for model in loaded]
    np.testing.assert_array_equal(corrected[0], corrected[1])
    np.testing.assert_array_equal(corrected[0], corrected[2])
    assert loaded[0].module is not trained.module
    with pytest.raises(TypeError, match="'unfrozen' here that has an effect"):
        FedSCGEN.load_query_data(query, trained, unfrozen=True)


def test_query_data_get_the_reference_genes_in_their_order(trained, tmp_path):
    trained.references = trained.get_references()
    trained.save(tmp_path / "model")
    cells = make_adata(n_cells=60, n_batches=1, seed=3)
    query = cells[:, ::-1][:, :-2].copy()
    genes = FedSCGEN.prepare_query_anndata(query, trained, return_reference_var_names=True)
    assert list(genes) == trained.genes
    prepared = FedSCGEN.prepare_query_anndata(query, tmp_path / "model", inplace=False)
    assert list(prepared.var_names) == trained.genes
    assert query.n_vars == len(genes) - 2
    expected = cells.to_df()
    expected[cells.var_names[:2]] = 0
    np.testing.assert_array_equal(prepared.to_df()[cells.var_names], expected)
    assert FedSCGEN.prepare_query_anndata(query, trained) is None
    np.testing.assert_array_equal(query.to_df(), prepared.to_df())
    FedSCGEN.load_query_data(query, trained).correct()


def test_query_data_of_other_genes_are_refused(trained):
    query = make_adata(n_cells=60)
    query.var_names = [f"ENSG{i:011}" for i in range(query.n_vars)]
    with pytest.raises(ValueError, match="No reference var names found in query data"):
        FedSCGEN.prepare_query_anndata(query, trained)


def test_a_collection_is_refused_with_the_remedy(adata):
    collection = AnnCollection([adata, adata.copy()], join_obs="inner", index_unique="-")
    with pytest.raises(TypeError, match=r"pass anndata\.concat\(\[\.\.\.\]\) of its parts"):
        FedSCGEN.setup_anndata(collection)
    FedSCGEN.setup_anndata(anndata.concat([adata, adata], index_unique="-"))


def test_cells_that_only_other_modalities_have_are_refused(adata):
    protein = anndata.AnnData(np.ones((adata.n_obs, 2), dtype=np.float32), obs=adata.obs[[]].copy())
    with pytest.raises(ValueError, match=r"'rna' has 70 of the MuData's \d+ cells: set up mdata\.mod\['rna'\] itself"):
        FedSCGEN.setup_mudata(MuData({"rna": adata[:70].copy(), "protein": protein}))


def test_a_modality_in_another_order_is_refused_as_rows_would_be_mixed_up(adata):
    protein = anndata.AnnData(np.ones((adata.n_obs, 2), dtype=np.float32), obs=adata.obs[[]].copy())
    mixed = MuData({"protein": protein, "rna": adata[::-1].copy()})
    with pytest.raises(ValueError, match="has the MuData's cells in another order"):
        FedSCGEN.setup_mudata(mixed)


def test_the_model_is_one_of_scvi_tools(trained):
    assert isinstance(trained, BaseModelClass)
    assert {"elbo_train", "elbo_validation"} <= set(trained.history)
    assert SMALL["n_hidden"] == trained.init_params_["non_kwargs"]["n_hidden"]
