"""Cells with other genes than the model's: a few missing ones are zero, further ones can be kept."""

import re

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from mudata import MuData
from scipy import sparse

from cells import leave_out_pandas, make_adata
from fedscgen._genes import lacks_genes
from fedscgen.model import CorrectionOptions, FedSCGEN

LACKING = "1 of the model's 30 genes are missing in var_names ('gene3'): taken for zero in every cell"


def without(adata, *genes):
    return adata[:, ~adata.var_names.isin(genes)].copy()


def zeroed(adata, gene):
    """The cells with a gene that none expresses."""
    values = adata.to_df()
    values[gene] = 0
    padded = adata.copy()
    padded.X = sparse.csr_matrix(values.to_numpy(np.float32))
    return padded


def test_one_missing_gene_is_zero_and_stays_absent(trained, adata):
    references = trained.get_references()
    with pytest.warns(UserWarning, match=re.escape(LACKING)):
        corrected = trained.correct(without(adata, "gene3"), references=references)
    expected = trained.correct(zeroed(adata, "gene3"), references=references)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)
    assert list(corrected.var_names) == [name for name in adata.var_names if name != "gene3"]
    np.testing.assert_allclose(
        corrected.to_df("fedscgen_corrected"),
        expected.to_df("fedscgen_corrected").drop(columns="gene3"),
        atol=1e-5,
    )


@pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")  # mudata's own
@pytest.mark.parametrize("as_mudata", [False, True])
def test_a_loaded_model_takes_cells_that_lack_a_gene(adata, tmp_path, as_mudata):
    wrap = (lambda cells: MuData({"rna": cells})) if as_mudata else (lambda cells: cells)
    (FedSCGEN.setup_mudata if as_mudata else FedSCGEN.setup_anndata)(data := wrap(adata.copy()))
    model = FedSCGEN(data, n_hidden=16, n_latent=4)
    model.train_local(1)
    model.references = model.get_references()
    model.save(tmp_path / "model")
    expected = model.correct(wrap(zeroed(adata, "gene3")))
    with pytest.warns(UserWarning, match=re.escape(LACKING)):
        loaded = FedSCGEN.load(tmp_path / "model", wrap(without(adata, "gene3")))
    corrected = loaded.correct()
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)
    assert corrected.n_vars == 29
    assert list(corrected.obs["age"]) == list(adata.obs["age"])
    assert list(corrected.var.columns) == []
    assert "X_given" in corrected.obsm


def test_more_than_the_stated_share_is_refused_and_can_be_allowed(trained, adata, tmp_path):
    trained.references = trained.get_references()
    trained.save(tmp_path / "model")
    fewer = without(adata, "gene3", "gene4")
    told = r"2 of the model's 30 genes are missing .* or allow for more than max_missing_genes=0.05 of them"
    with pytest.raises(ValueError, match=told):
        trained.correct(fewer)
    with pytest.raises(ValueError, match=told):
        FedSCGEN.load(tmp_path / "model", fewer)
    with pytest.warns(UserWarning, match="2 of the model's 30 genes"):
        assert trained.correct(fewer, max_missing_genes=0.1).n_vars == 28
    with pytest.raises(ValueError, match=r"max_missing_genes=1.5: a share, from 0 to below 1"):
        CorrectionOptions(max_missing_genes=1.5)


MEASURES = {
    "get_latent_representation": lambda model, cells, **allowed: model.get_latent_representation(cells, **allowed),
    "predict": lambda model, cells, **allowed: model.predict(cells, soft=True, **allowed),
    "correct": lambda model, cells, **allowed: model.correct(cells, **allowed).obsm["X_fedscgen"],
    "get_elbo": lambda model, cells, **allowed: model.get_elbo(cells, **allowed),
    "get_reconstruction_error": lambda model, cells, **allowed: model.get_reconstruction_error(cells, **allowed)[
        "reconstruction_loss"
    ],
    "get_marginal_ll": lambda model, cells, **allowed: model.get_marginal_ll(cells, n_mc_samples=1, **allowed),
}


@pytest.mark.parametrize("name", MEASURES)
def test_all_that_takes_new_cells_treats_missing_genes_alike(trained, adata, name):
    trained.references, measure = trained.get_references(), MEASURES[name]
    torch.manual_seed(0)
    expected = measure(trained, zeroed(adata, "gene3"))
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=re.escape(LACKING)) as warned:
        given = measure(trained, without(adata, "gene3"))
    assert len(leave_out_pandas(warned)) == 1
    np.testing.assert_allclose(given, expected, atol=1e-5)
    fewer = without(adata, "gene3", "gene4")
    with pytest.raises(ValueError, match=r"2 of the model's 30 genes .* allow for more than max_missing_genes=0\.05"):
        measure(trained, fewer)
    with pytest.warns(UserWarning, match="2 of the model's 30 genes"):
        measure(trained, fewer, max_missing_genes=0.1)


@pytest.mark.parametrize("name", MEASURES)
def test_cells_with_one_gene_twice_are_refused(trained, adata, name):
    twice = adata.copy()
    twice.var_names = ["gene0", "gene0", *adata.var_names[2:]]
    with pytest.raises(ValueError, match="var_names are not unique: 'gene0' occurs 2 times"):
        MEASURES[name](trained, twice)


@pytest.mark.parametrize(
    ("genes", "names", "told"),
    [
        (["ENSG00000000003.15", "ENSG00000000005.6"], ["ENSG00000000003", "ENSG00000000005"],
         "which differ in the version: 'ENSG00000000003' here is 'ENSG00000000003.15' there"),
        (["CD3E", "MS4A1"], ["Cd3e", "Ms4a1"], "differ in upper and lower case: 'Cd3e' here is 'CD3E' there"),
        (["ENSG00000000003", "ENSG00000000005"], ["TSPAN6", "TNMD"],
         "which are Ensembl ids, such as 'ENSG00000000003', where these cells have symbols, such as 'TSPAN6'"),
        (["TSPAN6", "TNMD"], ["ENSG00000000003.1", "ENSG00000000005.2"],
         "which are symbols, such as 'TSPAN6', where these cells have Ensembl ids, such as 'ENSG00000000003.1'"),
        (["CD3E", "MS4A1"], ["GNLY", "NKG7"], "('CD3E', 'MS4A1'): use the same annotation"),
    ],
)  # fmt: skip
def test_how_names_differ_is_said_with_both(genes, names, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        lacks_genes(make_adata(n_genes=2).var.set_axis(names).index, genes, 0.05)


@pytest.mark.parametrize("kind", ["sparse", "dense", "denoised", "X"])
def test_genes_that_the_model_does_not_know_are_kept_as_they_are(trained, kind):
    wider = make_adata(n_genes=40)[:, ::-1].copy()
    if kind == "dense":
        wider.X = wider.X.toarray()
    options = {"denoised": {"denoise": True}, "X": {"expression": "X"}}.get(kind, {})
    kept = trained.correct(wider, keep_genes=True, **options)
    known = trained.correct(wider, **options)
    assert list(kept.var_names) == list(wider.var_names)
    assert list(kept.var_names[kept.var["fedscgen_corrected"]]) == list(known.var_names)
    layer = None if kind == "X" else "fedscgen_corrected"
    assert sparse.issparse(kept.X if kind == "X" else kept.layers[layer]) == (kind in ("sparse", "X"))
    np.testing.assert_allclose(kept.to_df(layer)[known.var_names], known.to_df(layer))
    others = kept.var_names[~kept.var["fedscgen_corrected"]]
    np.testing.assert_allclose(kept.to_df(layer)[others], wider.to_df()[others])
    assert "fedscgen_corrected" not in known.var


def test_cells_on_disk_are_corrected_whole(trained, adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = read_h5ad(tmp_path / "cells.h5ad", backed="r")
    expected, corrected = trained.correct(adata.copy()), trained.correct(on_disk)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)
    assert not corrected.isbacked
    on_disk.file.close()


def test_a_model_set_up_with_cells_on_disk_corrects_them(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = read_h5ad(tmp_path / "cells.h5ad", backed="r")
    FedSCGEN.setup_anndata(on_disk)
    model = FedSCGEN(on_disk, n_hidden=16, n_latent=4)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    corrected = model.correct()
    assert not corrected.isbacked
    assert corrected.layers["fedscgen_corrected"].shape == adata.shape
    on_disk.file.close()


@pytest.mark.filterwarnings("ignore:.*of the model's 30 genes are missing:UserWarning")
@pytest.mark.parametrize("kind", ["mean", "landmarks"])
def test_more_genes_may_lack_wherever_new_cells_are_taken(trained, adata, kind):
    lacking = without(adata, *[f"gene{i}" for i in range(6)])
    with pytest.raises(ValueError, match="6 of the model's 30 genes"):
        trained.get_references(lacking, kind=kind)
    references = trained.get_references(lacking, kind=kind, max_missing_genes=0.2)
    assert np.isfinite(references.means if kind == "mean" else references.positions).all()
    if kind == "mean":
        shifts = trained.get_latent_shifts(references, lacking, max_missing_genes=0.2)
        stats = trained.get_label_stats(lacking, max_missing_genes=0.2)
        np.testing.assert_allclose(shifts.shifts, references.means - stats.means, atol=1e-5)
