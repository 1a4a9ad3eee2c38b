"""The command line: what it writes, what it leaves alone, and what it says of bad input."""

import re

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from typer.testing import CliRunner

from cells import make_adata
from fedscgen.cli import app
from page import Page

pytestmark = pytest.mark.filterwarnings(
    "ignore:n_jobs value 1 overridden:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"
)


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The published network takes too long for tests of files."""
    from fedscgen.model import FedSCGEN

    monkeypatch.setattr(FedSCGEN.__init__, "__kwdefaults__", {**FedSCGEN.__init__.__kwdefaults__, "n_hidden": 16})
    from fedscgen.model import FedVAE

    monkeypatch.setattr(FedVAE.__init__, "__kwdefaults__", {**FedVAE.__init__.__kwdefaults__, "n_hidden": 16})


@pytest.fixture
def file(tmp_path):
    """Cells of three sites on disk."""
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result):
    return re.sub(r"\s+", " ", result.output + (result.stderr or ""))


@pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")
def test_demo_begins_with_counts_and_names_types_alike(tmp_path):
    result = run("demo", "-o", tmp_path / "demo", "--settings", "components", "--counts")
    assert result.exit_code == 0, result.output
    assert "obstacle: 'cd56+_nks' looks like 'CD56+ NK'" not in result.output, "Hospital B has no such type"
    assert "obstacle: 'cd14+_monocytes' looks like 'CD14+ Monocyte'" in result.output
    corrected = read_h5ad(tmp_path / "demo" / "corrected.h5ad")
    here = corrected.obs["batch"] == "Hospital B"
    assert "cd14+_monocytes" in set(corrected.obs.loc[here, "cell_type"])
    assert "CD14+ Monocyte" in set(corrected.obs.loc[here, "fedscgen_common_type"])
    moved = corrected.obs["fedscgen_moved"][corrected.obs["fedscgen_common_type"] == "CD14+ Monocyte"]
    assert moved.all()


def test_demo_writes_cells_model_and_report(tmp_path):
    result = run("demo", "-o", tmp_path / "demo", "--rounds", 1, "--epochs", 1)
    assert result.exit_code == 0, said(result)
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"corrected.h5ad", "model", "history.csv", "ledger.csv", "report.html"}
    corrected = read_h5ad(tmp_path / "demo" / "corrected.h5ad")
    assert corrected.n_obs == 700
    assert corrected.obsm["X_fedscgen"].shape == (700, 10)
    page = Page((tmp_path / "demo" / "report.html").read_text())
    shown = {row[0]: row[1] for row in page.rows if len(row) == 2}
    keys = {"site_key": "batch", "labels_key": "cell_type", "layer": "not set", "expression": "fedscgen_corrected"}
    assert {name: shown[name] for name in keys} == keys
    assert "n_hidden" in shown["model"]
    assert "Blood cells that ship with scanpy, logarithms (seed 0)" in page.text
    assert float(page.row("Markers kept")[1]) > 0.8
    assert page.charts("Probability of the cells' types")[0].endswith("of 700 cells")
    assert list(tmp_path.iterdir()) == [tmp_path / "demo"], "no temporary folder is left"


def test_simulate_then_correct_a_new_site(file, tmp_path):
    result = run("simulate", file, "-o", tmp_path / "out", "--rounds", 1, "--epochs", 1, "--reference", "mean")
    assert result.exit_code == 0, said(result)
    history = pd.read_csv(tmp_path / "out" / "history.csv")
    assert set(history["site"]) == {"site0", "site1", "site2"}
    assert "cell type means" in set(pd.read_csv(tmp_path / "out" / "ledger.csv")["kind"])
    newcomer = make_adata(n_cells=50, n_batches=1)[:, ::-1].copy()
    newcomer.obs = newcomer.obs.rename(columns={"cell_type": "annotation"}).drop(columns="batch")
    newcomer.write_h5ad(tmp_path / "new.h5ad")
    outputs = []
    for name, options in (("as_is.h5ad", []), ("included.h5ad", ["--include-newcomer"])):
        command = ["correct", tmp_path / "new.h5ad", "-m", tmp_path / "out" / "model", "-o", tmp_path / name]
        result = run(*command, "--labels-key", "annotation", *options)
        assert result.exit_code == 0, said(result)
        assert f"Wrote 50 corrected cells to {tmp_path / name}" in result.output.replace("\n", "")
        outputs.append(read_h5ad(tmp_path / name))
        assert not any(key.startswith("_scvi") for key in [*outputs[-1].obs, *outputs[-1].uns])
    assert (outputs[0].obsm["X_fedscgen"] != outputs[1].obsm["X_fedscgen"]).any()


def test_cells_without_a_label_take_part(tmp_path):
    cells = make_adata()
    labels = cells.obs["cell_type"].astype(object)
    labels.iloc[::6], labels.iloc[3::6] = "unclear", None
    cells.obs["cell_type"] = labels
    cells.write_h5ad(tmp_path / "cells.h5ad")
    command = ["simulate", tmp_path / "cells.h5ad", "-o", tmp_path / "out", "--rounds", 1, "--epochs", 1]
    refused = run(*command)
    assert refused.exit_code == 2
    assert "obs['cell_type'] is missing for 25 cells" in said(refused)
    assert "name an unlabeled_category" in said(refused)
    result = run(*command, "--unlabeled-category", "unclear")
    assert result.exit_code == 0, said(result)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "50 cells of 150 have no label" in page.text
    assert str(tmp_path / "cells.h5ad") in page.text
    types = {"type0", "type1", "type2", "type3"}
    obs = read_h5ad(tmp_path / "out" / "corrected.h5ad").obs
    assert types <= set(obs["fedscgen_cell_type"]) <= {*types, "unknown"}
    assert (tmp_path / "out" / "report.html").read_text().count("unclear") == 1  # as an option, and nobody's type
    cells.obs["cell_type"] = labels.fillna("unclear")
    cells.write_h5ad(tmp_path / "new.h5ad")
    command = [
        "correct",
        tmp_path / "new.h5ad",
        "-m",
        tmp_path / "out" / "model",
        "-o",
        tmp_path / "new_corrected.h5ad",
    ]
    result = run(*command, "--unlabeled-category", "unclear")
    assert result.exit_code == 0, said(result)
    obs = read_h5ad(tmp_path / "new_corrected.h5ad").obs
    assert types <= set(obs["fedscgen_cell_type"]) <= {*types, "unknown"}
    assert "unclear" in set(obs["cell_type"])


def test_the_published_settings_have_a_name(file, tmp_path):
    command = ["simulate", file, "-o", tmp_path / "out", "--settings", "paper", "--rounds", 1, "--epochs", 1]
    assert run(*command).exit_code == 0
    assert not any("linear_path" in name for name in np.load(tmp_path / "out" / "model" / "weights.npz").files)


def test_a_simulation_goes_on_from_a_saved_model(file, tmp_path):
    command = ["simulate", file, "--rounds", 1, "--epochs", 1]
    assert run(*command, "-o", tmp_path / "first").exit_code == 0
    result = run(*command, "-o", tmp_path / "out", "--init-model", tmp_path / "first" / "model")
    assert result.exit_code == 0, said(result)
    axes = [np.load(tmp_path / name / "model" / "weights.npz")["linear_path.axes"] for name in ("first", "out")]
    np.testing.assert_allclose(axes[0], axes[1], atol=1e-6)
    assert "sums before training" not in (tmp_path / "out" / "ledger.csv").read_text()
    result = run(*command, "-o", tmp_path / "none", "--init-model", tmp_path / "absent")
    assert result.exit_code == 2
    assert "there is no such folder or file" in said(result)


def test_a_file_of_settings_is_printed_changed_and_run(file, tmp_path):
    printed = run("settings", "paper").stdout
    assert "# Rounds of training. 0:" in printed
    assert "\nn-rounds = 8\n" in printed
    (tmp_path / "settings.toml").write_text(printed.replace("n-latent = 10", "n-latent = 3").replace("= 800", "= 16"))
    command = ["simulate", file, "-o", tmp_path / "out", "--settings", tmp_path / "settings.toml"]
    result = run(*command, "--rounds", 1, "--epochs", 1)
    assert result.exit_code == 0, said(result)
    assert read_h5ad(tmp_path / "out" / "corrected.h5ad").obsm["X_fedscgen"].shape == (150, 3)


def test_the_report_compares_with_the_cells_as_they_were(file, tmp_path):
    """Wherever corrected expression goes, and wherever the cells' own is."""
    adata = read_h5ad(file)
    adata.layers["log"], adata.X = adata.X, None
    adata.write_h5ad(file)
    pages = []
    for expression in ("fedscgen_corrected", "X"):
        content = f'[site]\nlayer = "log"\n[correction]\nexpression = "{expression}"\n'
        (tmp_path / "settings.toml").write_text(content)
        command = ["simulate", file, "-o", tmp_path / expression, "--settings", tmp_path / "settings.toml"]
        result = run(*command, "--rounds", 1, "--epochs", 1)
        assert result.exit_code == 0, said(result)
        pages.append((tmp_path / expression / "report.html").read_text())
    first, second = (re.findall(r"<td class='number'>(0\.\d+)</td>", page) for page in pages)
    assert first == second
    assert len(first) > 5


def test_a_report_that_cannot_be_drawn_costs_no_results(file, tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise ValueError("nothing to draw")

    monkeypatch.setattr("fedscgen.report.write_report", fail)
    assert run("simulate", file, "-o", tmp_path / "out", "--rounds", 1, "--epochs", 1).exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"corrected.h5ad", "model", "ledger.csv"}
    assert "there is no report.html: nothing to draw" in caplog.text


def test_bad_settings_are_refused_before_the_cells_are_read(tmp_path):
    (tmp_path / "none.h5ad").write_text("no cells")
    (tmp_path / "settings.toml").write_text("[federation]\nn-round = 3\n")
    result = run("simulate", tmp_path / "none.h5ad", "-o", tmp_path / "out", "--settings", tmp_path / "settings.toml")
    assert result.exit_code == 2
    assert "Error: unknown 'n-round' in [federation] of" in said(result)
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_kept(file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    command = ["simulate", file, "-o", tmp_path / "out", "--rounds", 1, "--epochs", 1]
    result = run(*command)
    assert result.exit_code == 2
    assert "exists: choose another place or add --overwrite" in said(result)
    assert (tmp_path / "out" / "precious.txt").exists()
    assert run(*command, "--overwrite").exit_code == 0
    assert not (tmp_path / "out" / "precious.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--site-key", "hospital"], "Error: obs['hospital'] not found; there are 'batch', 'cell_type', 'age'"),
        (["--labels-key", "kind"], "Error: obs['kind'] not found"),
        (["--layer", "log"], "Error: layers['log'] not found"),
        (["--min-cells", "1000"], "Error: no cell type is reported by 2 sites"),
        (["--rounds", "-1"], "Invalid value"),
        (["--secure", "magic"], "Invalid value"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(file, tmp_path, options, message):
    result = run("simulate", file, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in said(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad"]


def test_an_unknown_aggregator_is_refused_with_the_choices_before_the_file_is_read(tmp_path):
    result = run("simulate", tmp_path / "none.h5ad", "-o", tmp_path / "out", "--secure", "magic")
    assert result.exit_code == 2
    text = re.sub(r"[│\s]+", " ", said(result))  # without the frame around it
    assert "unknown aggregator 'magic': choose one of 'plain', 'crypten', 'masked'" in text


def test_help_says_what_each_aggregator_does():
    text = re.sub("[^a-z: ]", "", said(run("simulate", "--help")))
    for name in ("plain", "masked", "crypten"):
        assert f"{name}:" in text


def test_a_site_that_fails_leaves_no_output(file, tmp_path, monkeypatch):
    from fedscgen.model import FedSCGEN

    def dying(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FedSCGEN, "train_local", dying)
    result = run("simulate", file, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "Error: site 'site0' failed at 'model weights' in round 1: out of memory" in said(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad"]


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "text.h5ad").write_text("not cells")
    result = run("simulate", tmp_path / "text.h5ad", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "text.h5ad can't be read as .h5ad" in said(result)
    result = run("simulate", tmp_path / "none.h5ad", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "none.h5ad does not exist" in said(result)


def test_correct_needs_a_model_of_a_federation(file, tmp_path):
    result = run("correct", file, "-m", tmp_path / "nowhere", "-o", tmp_path / "out.h5ad")
    assert result.exit_code == 2
    assert "holds no FedSCGEN model: model.json is missing" in said(result)
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    "command", [[], ["demo"], ["simulate"], ["correct"], ["benchmark", "run"], ["ledger", "verify"]]
)
def test_help_is_worth_reading(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert len(said(result)) > 300


def test_a_ledger_is_verified(tmp_path):
    from fedscgen import Message
    from fedscgen.federation import PrivacyLedger

    path = tmp_path / "ledger.csv"
    for kind in ("settings", "model weights"):
        PrivacyLedger(path).record("server", "north", Message(kind), b"bytes")
    whole = run("ledger", "verify", path)
    head = path.read_text()[-65:-1]
    assert whole.exit_code == 0
    assert f"2 rows, none altered, missing or out of order. The last chain is {head}" in said(whole)
    assert run("ledger", "verify", path, "--head", head).exit_code == 0
    cut = path.read_text().splitlines(keepends=True)
    path.write_text("".join(cut[:2]))
    assert run("ledger", "verify", path).exit_code == 0
    missing = run("ledger", "verify", path, "--head", head)
    assert (missing.exit_code, f"no row has the chain {head}" in said(missing)) == (1, True)
    path.write_text("".join(cut)[:-10])
    unfinished = run("ledger", "verify", path)
    assert (unfinished.exit_code, "not written to its end" in said(unfinished)) == (3, True)
    path.write_text("".join(cut).replace("north", "south"))
    altered = run("ledger", "verify", path)
    assert (altered.exit_code, "Altered: line 2 was altered" in said(altered)) == (1, True)
    assert run("ledger", "verify", tmp_path / "none.csv").exit_code == 2


TINY_SPEC = """
[data.cells]
file = "cells.h5ad"
[methods.broken]
like = "pca"
n_components = -1
[[experiments]]
name = "e"
kind = "integration"
data = ["cells"]
methods = ["pca", "broken"]
"""


def test_benchmark_runs_reports_and_says_what_failed(file, tmp_path):
    pytest.importorskip("scib_metrics")
    (tmp_path / "spec.toml").write_text(TINY_SPEC)
    result = run("benchmark", "run", tmp_path / "spec.toml", "-o", tmp_path / "out", "--jobs", 1)
    assert result.exit_code == 1
    assert "2 tasks: 1 run, 0 finished before, 1 failed." in said(result)
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(results["dataset"]) == {"cells"}
    assert "n_components" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "out" / "report.html").unlink()
    assert run("benchmark", "report", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "report.html").exists()
    plan = run("benchmark", "run", tmp_path / "spec.toml", "-o", tmp_path / "out", "--dry-run")
    assert plan.exit_code == 0
    assert "1 tasks to run, 1 finished" in said(plan)


def test_own_cells_go_with_a_specification(tmp_path, file):
    command = ["benchmark", "run", "quality", "-o", tmp_path / "out", "--dry-run"]
    assert "competitors                         6 " in run(*command).output
    with_own = run(*command, "--data", f"wards={file}", "--data", f"clinics={file}")
    assert "competitors                         8 " in with_own.output
    refused = run(*command, "--data", "cells.h5ad")
    assert refused.exit_code == 2
    assert "--data cells.h5ad: write NAME=FILE.h5ad" in said(refused)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smok", "-o", "out"], "Error: no specification 'smok'"),
        (["run", "smoke", "-o", "out", "--devices", "gpu"], "Error: devices gpu: name 'cpu' or numbers of GPUs"),
        (["report", "nowhere"], "holds no benchmark: plan.json is missing"),
        (["spec", "smok"], "Error: no specification 'smok': there are paper, quality, smoke"),
    ],
)
def test_benchmark_refuses_bad_input_in_one_line(tmp_path, monkeypatch, arguments, message):
    if arguments[0] == "run":
        pytest.importorskip("scib_metrics", reason="needs the extra fedscgen[benchmark]")
    monkeypatch.chdir(tmp_path)
    result = run("benchmark", *arguments)
    assert result.exit_code == 2
    assert message in said(result)
    assert not list(tmp_path.iterdir())


def test_a_printed_specification_can_be_run(tmp_path, monkeypatch):
    printed = run("benchmark", "spec", "smoke")
    assert printed.exit_code == 0
    (tmp_path / "mine.toml").write_text(printed.output)
    result = run("benchmark", "run", tmp_path / "mine.toml", "-o", tmp_path / "out", "--dry-run")
    assert "55 tasks to run" in said(result)
    assert run("benchmark", "spec").output.split() == ["paper", "quality", "smoke"]


def test_simulate_and_correct_take_a_label_map_and_leave_own_names(file, tmp_path):
    adata = read_h5ad(file)
    own = adata.obs["cell_type"].astype(str)
    own[adata.obs["batch"] == "site1"] += "s"
    adata.obs["cell_type"] = own
    adata.write_h5ad(file)
    (tmp_path / "labels.toml").write_text("[labels]\n" + "".join(f"type{i}s = 'type{i}'\n" for i in range(4)))
    named = ["--label-map", tmp_path / "labels.toml"]
    result = run("simulate", file, "-o", tmp_path / "out", "--settings", "components", *named)
    assert result.exit_code == 0, said(result)
    corrected = read_h5ad(tmp_path / "out" / "corrected.h5ad")
    assert corrected.obs["cell_type"].astype(str).equals(own)
    assert set(corrected.obs["fedscgen_common_type"]) == {"type0", "type1", "type2", "type3"}
    result = run("correct", file, "-m", tmp_path / "out" / "model", "-o", tmp_path / "new.h5ad", *named)
    assert result.exit_code == 0, said(result)
    assert set(read_h5ad(tmp_path / "new.h5ad").obs["cell_type"]) == set(own)
    result = run("simulate", file, "-o", tmp_path / "no", "--unlabelled", *named)
    assert (result.exit_code, "no cell has a label" in said(result)) == (2, True)
