"""A metric and a method that an installed package adds, as the documentation shows them."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from fedscgen._registry import PLUGINS
from fedscgen.benchmark import Method, list_methods, register_method
from page import Page
from pages import read_blocks

PAGE = "docs/extending.md"
LONGEST_EXAMPLE = 25


@pytest.fixture
def packages(tmp_path):
    """A folder of installed packages, with one that holds the two examples."""
    (metric,) = read_blocks(PAGE, "python", "A new metric")
    (method,) = read_blocks(PAGE, "python", "A new benchmark method")
    assert max(len(code.splitlines()) for code in (metric, method)) <= LONGEST_EXAMPLE
    information = tmp_path / "packages" / "my_lab-1.0.dist-info"
    information.mkdir(parents=True)
    (tmp_path / "packages" / "my_lab.py").write_text(metric + method)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my_lab\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{PLUGINS}]\nmine = my_lab\n")
    return tmp_path / "packages"


def test_a_benchmark_runs_and_reports_what_an_installed_package_adds(packages, tmp_path):
    pytest.importorskip("scib_metrics")
    (specification,) = read_blocks(PAGE, "toml", "A new benchmark method")
    (tmp_path / "spec.toml").write_text(specification)
    program = [sys.executable, "-c", "from fedscgen.cli import app; app()", "benchmark", "run"]
    command = [*program, tmp_path / "spec.toml", "-o", tmp_path / "out", "--jobs", "1"]
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)  # noqa: S603
    assert run.returncode == 0, run.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv").set_index(["method", "metric"])["value"]
    assert 0 <= results["pca", "reach"] <= results["centred", "reach"] <= 1
    assert results["centred", "PCR"] > 0.9, "the batches' means are gone"
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.row("reach")[1] == "a cell of another batch is near (share of cells)"
    assert {"pca", "centred"} <= set(page.tables("Method", "total")[0])
    assert "centred" not in list_methods(), "this process has no such package"


def test_a_method_s_name_is_taken_once():
    with pytest.raises(ValueError, match="there is method 'pca' already"):
        register_method("pca", Method(lambda cells: cells.all.X))


def test_a_function_alone_is_no_method():
    with pytest.raises(TypeError, match=r"method 'mine' is a function, not a Method: pass Method\(function\)"):
        register_method("mine", lambda cells: cells.all.X)
    assert "mine" not in list_methods()


def test_settings_of_a_method_are_what_it_takes_besides_the_cells():
    def embed(cells, *, layer="counts", n_components=3):
        return cells.all.layers[layer][:, :n_components]

    assert Method(embed).settings() == {"layer", "n_components"}
    assert not Method(embed).in_rounds
    assert not Method(embed).decodes
