"""Three hospitals that agree on nothing, from raw counts to corrected cells by two commands."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import read_h5ad
from typer.testing import CliRunner

from fedscgen.cli import app
from raw_counts import real_counts, write_10x_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore:site 'west'. no cell has a label:UserWarning",
    "ignore:n_jobs value 1 overridden:UserWarning",
    "ignore:.*:DeprecationWarning",
    "ignore:.*:FutureWarning",
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """North: Ensembl ids with versions. South: previous symbols, logarithms per 100,000. West: symbols, no labels."""
    folder = tmp_path_factory.mktemp("hospitals")
    counts = real_counts()
    symbols = counts.var_names.to_numpy()
    ids = np.array([f"ENSG{i:011}" for i in range(len(symbols))])
    previous = [f"OLD{i}" if i % 2 else "" for i in range(len(symbols))]
    table = {"symbol": symbols, "prev_symbol": previous, "alias_symbol": "", "ensembl_gene_id": ids}
    pd.DataFrame(table).to_csv(folder / "genes.tsv", sep="\t", index=False)
    counts.obs["donor"] = np.where(np.arange(counts.n_obs) % 2, "one", "two")
    north, south, west = (counts[i::3].copy() for i in range(3))
    versions = [f"{name}.{i % 9}" for i, name in enumerate(ids)]
    write_10x_folder(folder / "north", north, versions, versions)
    sc.pp.normalize_total(south, target_sum=1e5)
    sc.pp.log1p(south)
    south.var_names = np.where(np.array(previous) == "", symbols, previous)
    south.obs["cell_type"] = south.obs["cell_type"].str.lower().str.replace(" ", "_") + "s"
    south.write_h5ad(folder / "south.h5ad")
    write_10x_folder(folder / "west", west, ids, symbols, with_cells=False)
    return folder, counts


def test_every_obstacle_is_named_and_two_commands_lead_to_corrected_cells(hospitals):
    folder, counts = hospitals
    sources = [folder / "north", folder / "south.h5ad", folder / "west"]
    raw = run("check", *sources)
    assert raw.exit_code == 1, raw.output
    for part in ("north: raw counts", "west: raw counts", "south: normalised to 100,000", "genes go by different"):
        assert part in raw.output

    recipe = ["--prepare", "--genes", "symbol", "--gene-table", folder / "genes.tsv", "--min-genes", 50]
    proposed = run("check", *sources, *recipe, "--propose", folder / "labels.toml")
    assert "'cd56+_nks' looks like 'CD56+ NK'" in proposed.output
    assert "west: no cell has a label" in proposed.output
    accepted = run("check", *sources, *recipe, "--label-map", folder / "labels.toml")
    assert accepted.exit_code == 0, accepted.output

    to = ["-o", folder / "out", "--site-key", "site", "--settings", "components", "--target-sum", 10_000]
    result = run("simulate", *sources, *recipe, "--label-map", folder / "labels.toml", *to)
    assert result.exit_code == 0, result.output
    corrected = read_h5ad(folder / "out" / "corrected.h5ad")
    assert corrected.n_obs == counts.n_obs
    assert set(corrected.var_names) == set(counts.var_names)
    own = corrected.obs["cell_type"].astype(object)
    assert set(own[corrected.obs["site"] == "south"]) == {
        f"{name.lower().replace(' ', '_')}s" for name in counts.obs["cell_type"]
    }
    assert own[corrected.obs["site"] == "west"].isna().all()
    assert set(corrected.obs["donor"].dropna()) == {"one", "two"}
    west = corrected[corrected.obs["site"] == "west"]
    truth = counts.obs["cell_type"].loc[west.obs_names].to_numpy()
    named = (west.obs["fedscgen_cell_type"] != "unknown").to_numpy()
    right = (west.obs["fedscgen_cell_type"].astype(str).to_numpy() == truth)[named].mean()
    assert right > 0.8
    assert named.mean() > 0.4
    assert (folder / "out" / "report.html").exists()

    to[1] = folder / "few genes"
    result = run("simulate", *sources, *recipe, "--label-map", folder / "labels.toml", *to, "--n-top-genes", 200)
    assert result.exit_code == 0, result.output
    assert read_h5ad(folder / "few genes" / "corrected.h5ad").n_vars == 200


def test_a_list_of_genes_that_cannot_be_read_is_refused(hospitals, tmp_path):
    folder, _ = hospitals
    wrong = tmp_path / "genes.txt"
    wrong.write_text("\n \n")
    result = run("simulate", folder / "south.h5ad", "-o", tmp_path / "out", "--gene-list", wrong)
    assert result.exit_code == 2
    assert "holds no name: write one gene in each line" in result.output.replace("\n", " ")
