"""Files that each hold a site's cells, with other genes and columns than the others'."""

import numpy as np
import pytest
from anndata import read_h5ad
from typer.testing import CliRunner

from cells import make_adata
from fedscgen.cli import app


@pytest.fixture
def files(tmp_path):
    """Three sites; one lacks genes, and each has a column of its own."""
    adata = make_adata()
    paths = []
    for site in ("site0", "site1", "site2"):
        cells = adata[adata.obs["batch"] == site].copy()
        del cells.obs["batch"]
        cells.obs[f"of_{site}"] = True
        cells = cells[:, 4:].copy() if site == "site0" else cells
        paths.append(tmp_path / f"{site}.h5ad")
        cells.write_h5ad(paths[-1])
    return paths


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs.*:UserWarning")
@pytest.mark.parametrize(("genes", "n_genes"), [("intersection", 26), ("union", 30)])
def test_the_joint_result_has_all_columns_and_the_genes_that_settings_want(files, tmp_path, genes, n_genes):
    (tmp_path / "settings.toml").write_text(f'[federation]\ngenes = "{genes}"\nn-rounds = 0\n')
    command = ["simulate", *files, "-o", tmp_path / "out", "--settings", tmp_path / "settings.toml"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    corrected = read_h5ad(tmp_path / "out" / "corrected.h5ad")
    assert corrected.shape == (150, n_genes)
    assert set(corrected.obs["batch"]) == {"site0", "site1", "site2"}
    for site in ("site0", "site1", "site2"):
        assert list(corrected.obs[f"of_{site}"].notna()) == list(corrected.obs["batch"] == site)
    if genes == "union":
        lacking = corrected[corrected.obs["batch"] == "site0"].to_df("fedscgen_corrected")
        assert not lacking[[f"gene{i}" for i in range(4)]].to_numpy().any()
        assert sorted(set(corrected.var["n_sites"])) == [2, 3]


def test_files_without_a_gene_in_common_are_refused(files, tmp_path):
    cells = read_h5ad(files[0])
    cells.var_names = [f"other{i}" for i in range(cells.n_vars)]
    cells.write_h5ad(files[0])
    done = CliRunner().invoke(app, ["simulate", *map(str, files), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "Error: the sites share no gene: add --prepare with --genes and --gene-table" in done.stderr


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs.*:UserWarning")
def test_donors_may_be_known_at_one_site_and_a_column_of_batches_be_a_sites_own(files, tmp_path):
    cells = read_h5ad(files[0])
    cells.obs["donor"] = [("ann", "bob")[i % 2] for i in range(cells.n_obs)]
    cells.obs["batch"] = "of a lab"
    cells.write_h5ad(files[0])
    paths = [*map(str, files), "--batch-key", "donor"]
    checked = CliRunner().invoke(app, ["check", *paths])
    assert checked.exit_code == 0, checked.output
    done = CliRunner().invoke(app, ["simulate", *paths, "-o", str(tmp_path / "out"), "--settings", "components"])
    assert done.exit_code == 0, done.output
    assert "site1: there is no column 'donor'; its cells are alike in it" in done.output
    corrected = read_h5ad(tmp_path / "out" / "corrected.h5ad")
    batches = corrected.uns["fedscgen_types"].groupby("site")["batch"].agg(set).to_dict()
    assert batches == {"site0": {"ann", "bob"}, "site1": {"site1"}, "site2": {"site2"}}
    assert set(corrected.obs["batch"].dropna()) == {"of a lab"}
    assert set(corrected.obs["site"]) == {"site0", "site1", "site2"}
    nobody = CliRunner().invoke(app, ["check", *map(str, files), "--batch-key", "lane"])
    assert nobody.exit_code == 2
    assert "obs['lane'] not found" in nobody.stderr.replace("\n", " ")


@pytest.mark.parametrize("name", ["", " "])
def test_a_site_without_a_name_is_refused(files, tmp_path, name):
    sources = [f"{name}={files[0]}", str(files[1])]
    done = CliRunner().invoke(app, ["simulate", *sources, "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "names no site: write NAME=" in done.stderr.replace("\n", " ")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs.*:UserWarning")
def test_files_without_a_cell_are_left_out_by_name(files, tmp_path):
    read_h5ad(files[0])[:0].copy().write_h5ad(files[0])
    command = ["simulate", *files, "-o", tmp_path / "out", "--settings", "components"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    assert "site0 is left out: its file holds no cell" in done.stdout
    assert set(read_h5ad(tmp_path / "out" / "corrected.h5ad").obs["batch"]) == {"site1", "site2"}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs.*:UserWarning")
def test_a_site_of_which_the_preparation_keeps_no_cell_is_left_out_by_name(files, tmp_path):
    for i, path in enumerate(files):
        cells = read_h5ad(path)
        cells.X = np.rint(np.expm1(cells.X.toarray())).astype(np.float32)
        cells.X[:, 5 if i == 1 else cells.n_vars :] = 0  # five genes are too few
        cells.write_h5ad(path)
    command = ["simulate", *files, "-o", tmp_path / "out", "--settings", "components", "--prepare", "--min-genes", "6"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    assert "site1 is left out: none of" in done.stdout
    assert set(read_h5ad(tmp_path / "out" / "corrected.h5ad").obs["batch"]) == {"site0", "site2"}


@pytest.mark.parametrize("command", ["simulate", "check"])
def test_one_file_is_no_two_sites(files, tmp_path, command):
    sources = [str(files[0]), f"other={files[0].parent}/./{files[0].name}"]
    options = ["-o", str(tmp_path / "out")] if command == "simulate" else []
    done = CliRunner().invoke(app, [command, *sources, *options])
    assert done.exit_code == 2
    assert "are one file: name each site's own, once" in " ".join(done.stderr.split())
