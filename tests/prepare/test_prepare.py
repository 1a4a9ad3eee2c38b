"""Raw counts become cells that a federation can train on."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData, read_h5ad
from mudata import MuData
from scipy import sparse
from typer.testing import CliRunner

from fedscgen.cli import app
from fedscgen.prepare import PrepareOptions, describe_preparation, prepare, read_gene_table, read_raw
from raw_counts import GENE_TABLE, real_counts, write_10x_folder, write_10x_h5

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
LOOSE = PrepareOptions(min_genes=0, max_mito=None)


@pytest.fixture(scope="module")
def counts():
    return real_counts()[:60].copy()


def small(names, values, **columns):
    return AnnData(sparse.csr_matrix(np.asarray(values, np.float32)), var=pd.DataFrame(columns, index=names))


def test_expression_is_scanpy_s_and_counts_stay(counts):
    prepared = prepare(counts, LOOSE)
    expected = counts.copy()
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(prepared.X.toarray(), expected.X.toarray(), rtol=1e-6)
    np.testing.assert_array_equal(prepared.layers["counts"].toarray(), counts.X.toarray())
    assert prepared.obs["cell_type"].equals(counts.obs["cell_type"])


def test_thresholds_are_those_of_scanpy_s_measures_and_are_told(counts):
    measured = sc.pp.calculate_qc_metrics(counts, percent_top=None, log1p=False)[0]["n_genes_by_counts"]
    least, most = int(measured.quantile(0.2)), int(measured.quantile(0.9))
    prepared = prepare(counts, PrepareOptions(min_genes=least, max_genes=most))
    assert list(prepared.obs_names) == list(counts.obs_names[measured.between(least, most)])
    said = describe_preparation(prepared)
    assert f"{int((measured < least).sum())} left out: fewer than {least} genes" in said
    assert f"{int((measured > most).sum())} left out: more than {most} genes" in said


@pytest.mark.parametrize("name", ["MT-ND1", "mt-Nd1", "ENSG00000198888.2"])
def test_cells_of_much_mitochondrial_expression_are_left_out(name):
    adata = small([name, "CD3E"], [[1, 9], [3, 7], [2, 8]])
    prepared = prepare(adata, PrepareOptions(min_genes=0, max_mito=0.2))
    assert list(prepared.obs_names) == ["0", "2"]
    assert prepared.uns["fedscgen_prepare"]["left_out"] == {"more than 20% mitochondrial": 1}
    without = prepare(adata[:, ["CD3E"]].copy(), PrepareOptions(min_genes=0))
    assert "no mitochondrial gene was found" in describe_preparation(without)


def test_genes_of_one_name_are_summed(tmp_path):
    (tmp_path / "genes.tsv").write_text(GENE_TABLE)
    adata = small(["CD97", "ADGRE5", "X1"], [[1, 2, 3], [0, 4, 5]])
    prepared = prepare(
        adata, PrepareOptions(min_genes=0, genes="symbol"), gene_table=read_gene_table(tmp_path / "genes.tsv")
    )
    assert list(prepared.var_names) == ["ADGRE5", "X1"]
    np.testing.assert_array_equal(prepared.layers["counts"].toarray(), [[3, 3], [4, 5]])
    assert "1 keep their own names, as no other was found: X1" in describe_preparation(prepared)
    assert list(adata.var_names) == ["CD97", "ADGRE5", "X1"]


def test_counts_are_found_in_layer_and_raw(counts):
    logged = prepare(counts, LOOSE)
    del logged.uns["fedscgen_prepare"]
    again = prepare(logged, LOOSE)
    assert again.uns["fedscgen_prepare"]["counts"] == "counts"
    np.testing.assert_allclose(again.X.toarray(), logged.X.toarray())
    logged.raw = counts
    of_raw = prepare(AnnData(logged.X, obs=logged.obs, var=logged.var, raw=logged.raw.to_adata()), LOOSE)
    assert of_raw.uns["fedscgen_prepare"]["counts"] == "raw"


@pytest.mark.parametrize("how", ["log", "log2", "none"])
def test_what_was_normalised_to_another_sum_is_brought_to_the_federation_s(counts, how):
    expected = prepare(counts, LOOSE)
    other = AnnData(prepare(counts, PrepareOptions(min_genes=0, target_sum=1e6)).X, obs=counts.obs, var=counts.var)
    other.X.data = {"log": other.X.data, "log2": other.X.data / np.log(2), "none": np.expm1(other.X.data)}[how]
    before = other.X.copy()
    prepared = prepare(other, LOOSE)
    assert (before != other.X).nnz == 0
    np.testing.assert_allclose(prepared.X.toarray(), expected.X.toarray(), rtol=1e-4)
    assert "counts" not in prepared.layers


def test_logarithms_without_some_genes_are_refused(counts):
    other = AnnData(prepare(counts, PrepareOptions(min_genes=0, target_sum=1e6)).X)
    with pytest.raises(ValueError, match="no counts: none of X, counts, raw holds whole numbers"):
        prepare(other[:, :300].copy(), LOOSE)


def test_estimated_counts_need_not_be_whole(counts):
    estimated = counts.copy()
    estimated.X = estimated.X * 0.93
    with pytest.raises(ValueError, match="no counts: none of X, counts, raw holds whole numbers"):
        prepare(AnnData(estimated.X.minimum(9.3)), LOOSE)
    estimated.X.data[0] = 60.5
    prepared = prepare(estimated, LOOSE)
    assert "counts from X, not whole" in describe_preparation(prepared)
    np.testing.assert_allclose(prepared.layers["counts"].toarray(), estimated.X.toarray())
    np.testing.assert_allclose(np.expm1(prepared.X.toarray()).sum(axis=1), 1e4, rtol=1e-3)


def test_bad_input_is_told(counts):
    with pytest.raises(KeyError, match="layer='spliced': there are X"):
        prepare(counts, PrepareOptions(layer="spliced"))
    with pytest.raises(ValueError, match=r"none of 60 cells is kept \(60: fewer than 5000 genes\)"):
        prepare(counts, PrepareOptions(min_genes=5000))
    with pytest.raises(ValueError, match="unknown genes 'hgnc': choose one of 'own', 'symbol', 'ensembl'"):
        PrepareOptions(genes="hgnc")
    with pytest.raises(ValueError, match=r"max_mito=20.0: a share"):
        PrepareOptions(max_mito=20)
    with pytest.raises(TypeError, match="pass PrepareOptions"):
        prepare(counts, {"min_genes": 3})


@pytest.mark.parametrize("form", ["folder", "h5", "h5ad", "h5mu"])
def test_all_forms_of_files_give_the_same_cells(counts, tmp_path, form):
    if form == "folder":
        path = write_10x_folder(tmp_path / "raw", counts, counts.var_names, counts.var_names)
    elif form == "h5":
        path = write_10x_h5(tmp_path / "raw.h5", counts)
        counts.obs.to_csv(tmp_path / "raw.cells.csv")
    elif form == "h5ad":
        path = tmp_path / "raw.h5ad"
        counts.write_h5ad(path)
    else:
        path = tmp_path / "raw.h5mu"
        MuData({"rna": counts}).write_h5mu(path)
    read = read_raw(path)
    np.testing.assert_array_equal(sparse.csr_matrix(read.X).toarray(), counts.X.toarray())
    assert list(read.var_names) == list(counts.var_names)
    assert list(read.obs_names) == list(counts.obs_names)
    assert list(read.obs["cell_type"]) == list(counts.obs["cell_type"])


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        read_raw(tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds no matrix.mtx"):
        read_raw(tmp_path)
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ValueError, match=r"can read a 10x folder.*convert"):
        read_raw(tmp_path / "x.csv")
    (tmp_path / "x.h5").write_text("nothing")
    with pytest.raises(ValueError, match=r"x.h5 can't be read"):
        read_raw(tmp_path / "x.h5")


def test_command_writes_a_file_and_leaves_the_input_alone(counts, tmp_path):
    folder = write_10x_folder(tmp_path / "raw", counts, counts.var_names, counts.var_names, with_cells=False)
    counts.obs.iloc[1:].to_csv(tmp_path / "types.csv")
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    arguments = ["prepare", folder, "-o", tmp_path / "out.h5ad", "--cells", tmp_path / "types.csv", "--min-genes", 1]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "60 of 60 cells are kept" in result.output
    written = read_h5ad(tmp_path / "out.h5ad")
    assert written.obs["cell_type"].isna().sum() == 1
    assert describe_preparation(written) in result.output
    assert before == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    again = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert again.exit_code == 2
    assert "--overwrite" in again.output
