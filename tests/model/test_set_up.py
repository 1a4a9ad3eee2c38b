"""What set-up accepts, and what it says of bad data."""

import re

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

from cells import SMALL, make_adata
from fedscgen.correction import NoSharedLabelError
from fedscgen.model import FedSCGEN


def test_default_keys_suffice(adata):
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata)
    assert model.summary_stats.n_batch == 3
    assert model.summary_stats.n_labels == 4
    assert "n_hidden: 800, n_layers: 2, n_latent: 20, dropout_rate: 0.05" in model._model_summary_string


@pytest.mark.parametrize("preset", FedSCGEN.PRESETS)
def test_presets_are_networks(adata, preset):
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **FedSCGEN.PRESETS[preset])
    assert model.module.encoder.mean.out_features == FedSCGEN.PRESETS[preset]["n_latent"]


def test_the_published_network_has_its_published_layers(adata):
    FedSCGEN.setup_anndata(adata)
    shapes = {
        name: array.shape for name, array in FedSCGEN(adata, **FedSCGEN.PRESETS["scarches"]).get_weights().items()
    }
    n_genes = adata.n_vars
    assert shapes["encoder.hidden.0.weight"] == (800, n_genes)
    assert shapes["encoder.hidden.1.0.weight"] == (800, 800)
    assert not {"encoder.hidden.0.bias", "encoder.hidden.1.0.bias"} & shapes.keys()
    assert shapes["encoder.mean.weight"] == shapes["encoder.log_variance.weight"] == (10, 800)
    assert shapes["decoder.hidden.0.0.weight"] == (800, 10)
    assert shapes["decoder.output.weight"] == (n_genes, 800)


def test_keys_may_be_none(adata):
    del adata.obs["batch"], adata.obs["cell_type"]
    FedSCGEN.setup_anndata(adata, batch_key=None, labels_key=None)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    assert model.get_latent_representation().shape == (150, 4)
    with pytest.raises(NoSharedLabelError):
        model.correct()


def test_references_by_type_need_cell_types_and_landmarks_do_not(trained, adata):
    references = trained.get_references(kind="dominant")
    shifts = trained.get_latent_shifts(references)
    FedSCGEN.setup_anndata(adata, labels_key=None)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    for by_type in ({"references": references}, {"shifts": shifts}):
        with pytest.raises(ValueError, match="references by cell type need cell types: set the data up with labels_k"):
            model.correct(**by_type)
    corrected = model.correct()
    assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    told = [key for key in corrected.obs if key.startswith("fedscgen")]
    assert told == ["fedscgen_moved"], "nothing is told of types without a label"


def test_a_layer_is_used_in_place_of_x(adata):
    adata.layers["log"] = adata.X.copy()
    adata.X = adata.X * 0
    FedSCGEN.setup_anndata(adata, layer="log")
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    assert np.ptp(model.get_latent_representation(), axis=0).min() > 0


@pytest.mark.parametrize("home", ["mdata", "rna"])
def test_mudata_with_the_columns_in_either_place(adata, home):
    protein = AnnData(np.ones((adata.n_obs, 2), dtype=np.float32), obs=adata.obs[[]].copy())
    mdata = MuData({"rna": adata, "protein": protein})
    if home == "mdata":
        mdata.obs[["batch", "cell_type"]] = adata.obs[["batch", "cell_type"]]
        del mdata["rna"].obs["batch"], mdata["rna"].obs["cell_type"]
    FedSCGEN.setup_mudata(mdata)
    model = FedSCGEN(mdata, **SMALL)
    model.train_local(1)
    corrected = model.correct()
    assert list(corrected.obs_names) == list(adata.obs_names)
    assert {"batch", "cell_type"} <= set(corrected.obs)
    assert corrected.layers["fedscgen_corrected"].shape == adata.shape


def test_mudata_without_the_modality(adata):
    mdata = MuData({"gex": adata})
    with pytest.raises(ValueError, match=r"modality 'rna' is not in mdata\.mod; it holds 'gex'"):
        FedSCGEN.setup_mudata(mdata)


def _nan(adata):
    adata.X[7, 3] = np.nan


def _infinite_dense(adata):
    adata.X = adata.X.toarray()
    adata.X[9, 2] = np.inf


def _no_label(adata):
    adata.obs.loc["cell4", "cell_type"] = np.nan


def _no_batch_column(adata):
    del adata.obs["batch"]


def _repeated_cells(adata):
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]


def _repeated_genes(adata):
    adata.var_names = ["same", *adata.var_names[1:-1], "same"]


def _no_expression(adata):
    adata.X = None


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_nan, ValueError, "X holds nan (first at cell 'cell7', gene 'gene3'): remove or repair"),
        (_infinite_dense, ValueError, "X holds inf (first at cell 'cell9', gene 'gene2')"),
        (_no_label, ValueError, "obs['cell_type'] is missing for 1 cell (first: 'cell4')"),
        (_no_batch_column, KeyError, "obs['batch'] not found; there are 'cell_type', 'age': add the column or name"),
        (_repeated_cells, ValueError, "obs_names are not unique: 'same' occurs 2 times; call adata.obs_names_make_uni"),
        (_repeated_genes, ValueError, "var_names are not unique: 'same' occurs 2 times; call adata.var_names_make_uni"),
        (_no_expression, ValueError, "X is empty: put log-normalised expression there"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
def test_bad_data_are_refused_by_name(adata, spoil, error, message):
    spoil(adata)
    with pytest.raises(error, match=re.escape(message)):
        FedSCGEN.setup_anndata(adata)


def test_no_cell_is_refused(adata):
    with pytest.raises(ValueError, match="nothing to work on: 0 cells x 30 genes"):
        FedSCGEN.setup_anndata(adata[:0].copy())


def test_a_missing_layer_is_refused(adata):
    with pytest.raises(KeyError, match=r"layers\['counts'\] not found; there are none"):
        FedSCGEN.setup_anndata(adata, layer="counts")


def test_raw_counts_are_warned_of(adata):
    adata.X = (adata.X * 20).astype(int).astype(np.float32)
    with pytest.warns(UserWarning, match="X looks like raw or unlogged counts .*run scanpy.pp.normalize_total"):
        FedSCGEN.setup_anndata(adata)


def test_unlogged_values_are_warned_of(adata):
    adata.X = adata.X * 1000
    with pytest.warns(UserWarning, match="looks like raw or unlogged counts"):
        FedSCGEN.setup_anndata(adata)


def test_negative_values_are_warned_of(adata):
    adata.X = adata.X.toarray() - 1
    with pytest.warns(UserWarning, match=r"X holds negative values \(lowest: -1\), but log-normalised"):
        FedSCGEN.setup_anndata(adata)


def test_one_label_is_warned_of():
    with pytest.warns(UserWarning, match=r"obs\['cell_type'\] holds one label only, 'type0'"):
        FedSCGEN.setup_anndata(make_adata(n_types=1))


def test_too_few_cells_to_train_on():
    adata = make_adata(n_cells=3, n_batches=1)
    FedSCGEN.setup_anndata(adata)
    with pytest.raises(ValueError, match="3 cells are too few to train on: at least 4"):
        FedSCGEN(adata, **SMALL).train_local(1)


def test_more_dimensions_than_genes_are_refused():
    adata = make_adata(n_genes=10)
    FedSCGEN.setup_anndata(adata)
    with pytest.raises(ValueError, match="n_latent=20: more dimensions than the 10 genes"):
        FedSCGEN(adata)
    with pytest.raises(ValueError, match="n_latent=0: at least 1"):
        FedSCGEN(adata, n_latent=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_cells_with_what_no_network_can_take_are_not_encoded(trained, adata, value):
    new = adata.copy()
    new.X = new.X.toarray().astype(np.float64)
    new.X[7, 3] = value
    with pytest.raises(ValueError, match=r"X holds (nan|inf) as float32 \(first at cell 'cell7', gene 'gene3'\)"):
        trained.get_latent_representation(new, indices=[2, 7])


def test_a_view_is_refused_with_the_remedy(adata):
    with pytest.raises(ValueError, match=r"this AnnData is a view of another.*pass adata\.copy\(\)"):
        FedSCGEN.setup_anndata(adata[:50])


def test_whether_a_gene_is_expressed_is_no_expression(adata):
    adata.X = adata.X > 0
    with pytest.raises(TypeError, match="X holds bool instead of real numbers: name a layer that holds expression"):
        FedSCGEN.setup_anndata(adata)
