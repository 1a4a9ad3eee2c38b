"""Raw counts in the forms that sequencing centres and repositories hand out."""

import gzip
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData, read_h5ad
from mudata import MuData
from scipy import sparse
from typer.testing import CliRunner

from fedscgen.cli import app
from fedscgen.prepare import PrepareOptions, find_transposed, prepare, read_gene_table, read_raw
from raw_counts import GENE_TABLE, real_counts, write_10x_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore:site 'west'. no cell:UserWarning",
    "ignore:n_jobs value 1 overridden:UserWarning",
    "ignore:.*:DeprecationWarning",
    "ignore:.*:FutureWarning",
)


@pytest.fixture
def counts():
    return real_counts()[:40].copy()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_same(read: AnnData, counts: AnnData):
    np.testing.assert_array_equal(sparse.csr_matrix(read.X).toarray(), counts.X.toarray())
    assert list(read.var_names) == list(counts.var_names)
    assert list(read.obs_names) == list(counts.obs_names)


def make_proteins(counts):
    return AnnData(counts.X[:, :3], obs=counts.obs[[]], var=pd.DataFrame(index=["adt-CD3", "adt-CD4", "adt-CD8"]))


def write_folder(folder, counts):
    return write_10x_folder(folder, counts, [f"ENSG{i:011}" for i in range(counts.n_vars)], counts.var_names)


def test_a_folder_is_read_as_scanpy_reads_it(counts, tmp_path):
    folder = write_folder(tmp_path / "raw", counts)
    ours, theirs = read_raw(folder), sc.read_10x_mtx(folder, make_unique=False)
    assert_same(ours, theirs)
    assert list(ours.var["gene_ids"]) == list(theirs.var["gene_ids"])


def test_folders_of_starsolo_of_repositories_and_of_a_whole_run_are_read(counts, tmp_path):
    folder = write_folder(tmp_path / "outs" / "filtered_feature_bc_matrix", counts)
    assert_same(read_raw(tmp_path / "outs"), counts)
    assert_same(read_raw(tmp_path), counts)
    for name in ("plain", "prefixed"):
        (tmp_path / name).mkdir()
    for file in folder.glob("*.gz"):
        (tmp_path / "plain" / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        (tmp_path / "prefixed" / f"GSM1_tumour_{file.name}").write_bytes(file.read_bytes())
    assert_same(read_raw(tmp_path / "plain"), counts)
    assert_same(read_raw(tmp_path / "prefixed"), counts)


def test_antibodies_in_a_folder_are_left_out(counts, tmp_path):
    folder = write_folder(tmp_path / "raw", counts)
    features = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None)
    features.loc[:4, 2] = "Antibody Capture"
    features.to_csv(folder / "features.tsv.gz", sep="\t", header=False, index=False)
    assert_same(read_raw(folder), counts[:, 5:])


def test_folders_that_hold_no_one_sample_are_told(counts, tmp_path):
    folder = write_folder(tmp_path / "raw", counts)
    (folder / "other_matrix.mtx.gz").write_bytes((folder / "matrix.mtx.gz").read_bytes())
    with pytest.raises(ValueError, match=r"holds several matrices \('matrix.mtx.gz', 'other_matrix.mtx.gz'\)"):
        read_raw(folder)
    (folder / "other_matrix.mtx.gz").unlink()
    pd.Series(counts.obs_names[1:]).to_csv(folder / "barcodes.tsv.gz", header=False, index=False)
    with pytest.raises(ValueError, match=r"40 cells x 765 genes, but there are 39 barcodes and 765 genes"):
        read_raw(folder)
    (folder / "features.tsv.gz").unlink()
    with pytest.raises(ValueError, match=r"can't be read: beside the matrix is no features or genes.tsv"):
        read_raw(folder)


def write_loom(path, counts, cells="CellID", genes="Gene"):
    """As loompy lays a file out."""
    with h5py.File(path, "w") as file:
        file.attrs["LOOM_SPEC_VERSION"] = "3.0.0"
        for name in ("layers", "row_graphs", "col_graphs", "attrs"):
            file.create_group(name)
        file["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        file["matrix"] = counts.X.T.toarray()
        file[f"col_attrs/{cells}"] = list(counts.obs_names)
        file["col_attrs/cell_type"] = list(counts.obs["cell_type"])
        file[f"row_attrs/{genes}"] = list(counts.var_names)
    return path


@pytest.mark.parametrize("names", [("CellID", "Gene"), ("obs_names", "var_names")])
def test_loom_is_read_where_loompy_is_installed(counts, tmp_path, names):
    pytest.importorskip("loompy", reason="needs loompy, which fedscgen doesn't install")
    read = read_raw(write_loom(tmp_path / "raw.loom", counts, *names))
    assert_same(read, counts)
    assert list(read.obs["cell_type"]) == list(counts.obs["cell_type"])
    strange = write_loom(tmp_path / "strange.loom", counts, "barcode", "Gene")
    with pytest.raises(ValueError, match=r"strange.loom can't be read: col_attrs has no 'CellID' or 'obs_names'"):
        read_raw(strange)


def test_without_loompy_the_package_is_named(counts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "loompy", None)
    monkeypatch.setattr("fedscgen.prepare._read.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="a loom file needs the package loompy: pip install loompy"):
        read_raw(write_loom(tmp_path / "raw.loom", counts))


def test_the_only_modality_is_taken_unless_it_is_another_and_others_are_listed(counts, tmp_path):
    MuData({"gex": counts}).write_h5mu(tmp_path / "one.h5mu")
    assert_same(read_raw(tmp_path / "one.h5mu"), counts)
    MuData({"gex": counts, "prot": make_proteins(counts)}).write_h5mu(tmp_path / "two.h5mu")
    with pytest.raises(ValueError, match=r"'rna' is not in mdata.mod; it holds 'gex', 'prot': .* \(--modality\)"):
        read_raw(tmp_path / "two.h5mu")
    assert_same(read_raw(tmp_path / "two.h5mu", modality="gex"), counts)
    MuData({"atac": counts}).write_h5mu(tmp_path / "atac.h5mu")
    with pytest.raises(ValueError, match="it holds 'atac'"):
        read_raw(tmp_path / "atac.h5mu")


@pytest.mark.parametrize("names", ["symbols", "ids", "barcodes", "table", "others"])
def test_genes_in_rows_are_found_and_refused(counts, tmp_path, names):
    table, others = None, {}
    cells = counts[:, :600].copy()
    if names == "ids":
        cells.var_names = [f"ENSG{i:011}.1" for i in range(cells.n_vars)]
    elif names != "symbols":
        cells.var_names = [f"g{i}" for i in range(cells.n_vars)]
    if names == "barcodes":
        rng = np.random.default_rng(0)
        cells.obs_names = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(cells.n_obs)]
    else:
        cells.obs_names = [f"cell{i}" for i in range(cells.n_obs)]
    if names == "table":
        (tmp_path / "genes.tsv").write_text(
            GENE_TABLE + "".join(f"HGNC:{i + 9}\tG{i}\t\t\tENSG9{i:010}\n" for i in range(cells.n_vars))
        )
        table = read_gene_table(tmp_path / "genes.tsv")
    if names == "others":
        others = {"right": cells[:, ::2].copy(), "too": cells[:, 1:].copy()}
        for i, adata in enumerate(others.values()):
            adata.obs_names = [f"{i}-{name}" for name in adata.obs_names]
    turned = cells.T.copy()
    found = find_transposed({**others, "turned": turned}, table)
    assert found == {"turned": found["turned"]}
    assert found["turned"] in turned.obs_names
    assert find_transposed({**others, "as it should be": cells}, table) == {}
    if names != "others":
        with pytest.raises(
            ValueError, match=r"genes x cells instead of cells x genes, as a row is called '.*--transpose"
        ):
            prepare(turned, gene_table=table)


def test_symbols_of_other_case_are_found_only_if_asked_for(tmp_path):
    (tmp_path / "genes.tsv").write_text(GENE_TABLE)
    table = read_gene_table(tmp_path / "genes.tsv")
    var = pd.DataFrame(index=["cd3e", "marchf1", "CD97", "shared", "b1", "strange"])
    cells = AnnData(sparse.csr_matrix(np.arange(1, 13, dtype=np.float32).reshape(2, 6)), var=var)
    loose = {"genes": "symbol", "min_genes": 0, "max_mito": None}
    plain = prepare(cells, PrepareOptions(**loose), gene_table=table)
    assert list(plain.uns["fedscgen_prepare"]["unmapped"]) == ["b1", "cd3e", "marchf1", "shared", "strange"]
    named = prepare(cells, PrepareOptions(**loose, ignore_case=True), gene_table=table)
    assert list(named.var_names) == ["CD3E", "MARCHF1", "ADGRE5", "shared", "B1", "strange"]
    with pytest.raises(ValueError, match=r"ignore_case: .*give one"):
        prepare(cells, PrepareOptions(**loose, ignore_case=True))


def test_what_files_hold_otherwise_is_told_and_mended_by_options(tmp_path):
    counts = real_counts()
    counts.obs["donor"] = np.where(np.arange(counts.n_obs) % 2, "one", "two")
    north, south, west = (counts[i::3].copy() for i in range(3))
    north.obs = north.obs.rename(columns={"cell_type": "celltype", "donor": "patient_id"})
    MuData({"gex": north, "prot": make_proteins(north)}).write_h5mu(tmp_path / "north.h5mu")
    south.write_h5ad(tmp_path / "south.h5ad")
    west.obs = west.obs[[]]
    west.T.copy().write_h5ad(tmp_path / "west.h5ad")
    files = [tmp_path / name for name in ("north.h5mu", "south.h5ad", "west.h5ad")]
    recipe = ["--prepare", "--min-genes", 50, "--batch-key", "donor", "--settings", "components"]
    told = run("check", *files, *recipe)
    assert told.exit_code == 1
    assert "obstacle: north takes no part: " in told.output
    assert "it holds 'gex', 'prot': name the one with RNA (--modality)" in told.output
    assert "obstacle: west takes no part: genes x cells instead of cells x genes" in told.output
    without_prepare = run("check", *files, "--modality", "gex")
    assert "obstacle: west: genes x cells instead of cells x genes, as a row is called" in without_prepare.output

    recipe += ["--modality", "gex", "--transpose", "west"]
    told = run("check", *files, *recipe)
    for own, common in (("celltype", "cell_type"), ("patient_id", "donor")):
        assert f"doubt: north: its column {own!r} may hold" in told.output
        assert f"add --column {own}={common}" in told.output
        recipe += ["--column", f"{own}={common}"]
    told = run("check", *files, *recipe)
    assert told.exit_code == 0, told.output
    assert "its column" not in told.output
    assert "a round" not in told.output.split("cost:")[1]  # as nobody trains
    done = run("simulate", *files, *recipe, "--site-key", "site", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    corrected = read_h5ad(tmp_path / "out" / "corrected.h5ad")
    assert corrected.n_obs == counts.n_obs
    west = corrected[corrected.obs["site"] == "west"]
    named = (west.obs["fedscgen_cell_type"] != "unknown").to_numpy()
    right = west.obs["fedscgen_cell_type"].astype(str) == counts.obs["cell_type"].loc[west.obs_names]
    assert named.mean() > 0.4
    assert right[named].mean() > 0.8


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--modality", "gex"), "--modality gex: no .h5mu file has it"),
        (("--transpose", "nobody"), "--transpose nobody: no site is called so; there are raw"),
        (("--column", "celltype"), "--column celltype: write OWN=COMMON"),
    ],
)
def test_options_that_concern_no_file_are_refused(counts, tmp_path, option, told):
    folder = write_folder(tmp_path / "raw", counts)
    refused = run("check", "--prepare", folder, *option)
    assert refused.exit_code == 2
    assert told in refused.stderr


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")
def test_a_zarr_folder_is_prepared(counts, tmp_path):
    counts.write_zarr(tmp_path / "raw.zarr")
    assert_same(read_raw(tmp_path / "raw.zarr"), counts)
    made = run("prepare", tmp_path / "raw.zarr", "-o", tmp_path / "out.h5ad", "--min-genes", 1)
    assert made.exit_code == 0, made.output
    assert read_h5ad(tmp_path / "out.h5ad").layers["counts"].sum() == counts.X.sum()
