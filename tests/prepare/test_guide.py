"""What stands in the guide is run as it stands."""

import shlex

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse
from typer.testing import CliRunner

from fedscgen.cli import app
from fedscgen.prepare import read_label_map
from pages import read_blocks
from raw_counts import write_10x_folder, write_10x_h5

pytestmark = pytest.mark.filterwarnings("ignore")  # told elsewhere; here is only seen whether it runs

GUIDE = "docs/guide/prepare.md"
N_GENES, N_CELLS = 600, 120
IDS, SYMBOLS = [f"ENSG{i:011}" for i in range(N_GENES)], [f"GENE{i}" for i in range(N_GENES)]
TYPES = np.array(["B cell", "T cell", "Monocyte"])


def make_counts(seed):
    """Counts of a site, of three types, with some 400 genes in a cell."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).gamma(1.0, 1.5, (len(TYPES), N_GENES))
    types = np.arange(N_CELLS) % len(TYPES)
    cells = pd.DataFrame({"cell_type": TYPES[types]}, index=[f"{seed}-{i}" for i in range(N_CELLS)])
    counts = sparse.csr_matrix(rng.poisson(means[types]).astype(np.float32))
    return AnnData(counts, obs=cells, var=pd.DataFrame(index=IDS))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with HGNC's table under both names that the guide has for it."""
    monkeypatch.chdir(tmp_path)
    table = {"symbol": SYMBOLS, "prev_symbol": "", "alias_symbol": "", "ensembl_gene_id": IDS}
    for name in ("hgnc_complete_set.txt", "hgnc.txt"):
        pd.DataFrame(table).to_csv(name, sep="\t", index=False)
    return tmp_path


def read_commands(position):
    """Commands of the guide's code block of this number, without their first word."""
    block = read_blocks(GUIDE, "bash")[position]
    return [shlex.split(line.removeprefix("fedscgen ")) for line in block.strip().splitlines()]


def run(command, exit_code=0):
    result = CliRunner().invoke(app, command)
    assert result.exit_code == exit_code, result.output
    return " ".join(result.output.split())


def test_a_folder_is_prepared(folder):
    counts = make_counts(0)
    write_10x_folder(folder / "filtered_feature_bc_matrix", counts, IDS, SYMBOLS, with_cells=False)
    counts.obs.to_csv("types.csv")
    (command,) = read_commands(0)
    run(command)
    prepared = read_h5ad("prepared.h5ad")
    assert list(prepared.var_names) == SYMBOLS
    assert list(prepared.obs["cell_type"]) == list(counts.obs["cell_type"])


def test_the_notebook_prepares_a_file(folder, capsys):
    write_10x_h5(folder / "raw.h5", make_counts(0), SYMBOLS)
    (code,) = read_blocks(GUIDE, "python")
    exec(code, names := {})  # noqa: S102  (our own page)
    assert f"{names['prepared'].n_obs} of {N_CELLS} cells are kept" in capsys.readouterr().out


def test_the_map_is_one(folder):
    (content,) = read_blocks(GUIDE, "toml")
    (folder / "labels.toml").write_text(content)
    assert read_label_map("labels.toml")["CL:0000084"] == "T cell"


def test_files_are_checked_and_the_proposed_map_is_accepted(folder):
    for seed, name in enumerate(("north", "south", "west")):
        counts = make_counts(seed)
        if name == "south":
            counts.obs["cell_type"] = counts.obs["cell_type"].str.lower() + "s"
        counts.write_h5ad(f"{name}.raw.h5ad")
        run(["prepare", f"{name}.raw.h5ad", "-o", f"{name}.h5ad"])
    proposing, accepting = read_commands(1)
    assert "'b cells' looks like 'B cell'" in run(proposing, exit_code=1)
    assert (folder / "check.html").exists()
    assert "nothing stands in the way" in run(accepting)


def test_raw_folders_become_a_result(folder):
    north, south, west = map(make_counts, range(3))
    south.obs["cell_type"] = south.obs["cell_type"].str.upper()
    write_10x_folder(folder / "north", north, IDS, SYMBOLS)
    write_10x_h5(folder / "south.h5", south, SYMBOLS)
    south.obs.to_csv("south.cells.csv")
    write_10x_folder(folder / "west" / "outs" / "filtered_feature_bc_matrix", west, IDS, SYMBOLS, with_cells=False)
    checking, simulating = read_commands(2)
    said = run(checking, exit_code=1)
    assert "'B CELL' looks like 'B cell'" in said
    assert "west: no cell has a label" in said
    run([*simulating, "--settings", "components"])
    corrected = read_h5ad(folder / "out" / "corrected.h5ad")
    assert corrected.obs["site"].value_counts().to_dict() == dict.fromkeys(("north", "south", "west"), N_CELLS)
    of_west = corrected[corrected.obs["site"] == "west"]
    right = of_west.obs["fedscgen_cell_type"].astype(str).to_numpy() == west.obs["cell_type"].loc[of_west.obs_names]
    assert right.mean() > 0.9
