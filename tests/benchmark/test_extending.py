"""A metric and a method of another package, as the documentation shows them."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from fedscgen import _registry
from fedscgen.benchmark import list_methods, run_benchmark
from fedscgen.benchmark.report import write_benchmark_report
from fedscgen.metrics import ALL_METRICS, EmbeddedCells, Metric, all_metrics, list_metrics, register_metric

PAGE = Path(__file__).parents[2] / "docs/extending_metric.md"
LONGEST_EXAMPLE = 25


def read_blocks(section, language):
    """Code blocks of a section of the page."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def forget_additions(monkeypatch):
    """Leave the registries, and what is installed, as they were."""
    from fedscgen.benchmark import _methods
    from fedscgen.metrics import _metric

    for registry in (_methods._METHODS, _metric._METRICS):
        monkeypatch.setattr(registry, "_values", dict(registry._values))
    yield
    _registry.load_plugins.cache_clear()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The two examples as a module of an installed package, for this process and those that it starts."""
    examples = [read_blocks(section, "python") for section in ("A new metric", "A new benchmark method")]
    code = [block for blocks in examples for block in blocks]
    assert [len(block.splitlines()) <= LONGEST_EXAMPLE for block in code] == [True, True]
    (declared,) = tomllib.loads(read_blocks("A new benchmark method", "toml")[1])["project"]["entry-points"].items()
    group, ((name, module),) = declared[0], declared[1].items()
    package = tmp_path / "site"
    path = package.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(code))
    information = package / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=":")
    _registry.load_plugins.cache_clear()


def test_a_benchmark_runs_and_reports_what_an_installed_package_adds(plugin, tmp_path):
    pytest.importorskip("scib_metrics")
    (tmp_path / "spec.toml").write_text(read_blocks("A new benchmark method", "toml")[0])
    summary = run_benchmark(tmp_path / "spec.toml", tmp_path / "out", jobs=1, show_progress=False)
    assert (summary.n_tasks, summary.n_failed) == (2, 0)
    results = pd.read_csv(tmp_path / "out" / "results.csv").set_index(["method", "metric"])["value"]
    assert 0 <= results["pca", "reach"] <= results["centred", "reach"] <= 1
    assert results["centred", "PCR"] > 0.9, "the batches' means are gone"
    assert list(list_methods())[-1] == "centred"
    page = write_benchmark_report(tmp_path / "out").read_text()
    assert "a cell of another batch is near (share of cells)" in page


def test_a_metric_that_is_added_counts_for_no_mean(ideal_demo):
    pytest.importorskip("scib_metrics")
    cells = ideal_demo[::5]
    arguments = cells.obsm["X_fedscgen"], cells.obs["batch"], cells.obs["cell_type"]
    before = all_metrics(*arguments, before=cells.obsm["X_fedscgen"])
    exec(read_blocks("A new metric", "python")[0], {})  # noqa: S102  (our own page)
    after = all_metrics(*arguments, before=cells.obsm["X_fedscgen"])
    assert list(after) == [*ALL_METRICS, "reach", "bio", "batch", "total"]
    np.testing.assert_equal({name: after[name] for name in before}, before)
    nearest = cdist(*2 * [arguments[0]]).argsort(axis=1)[:, 1:16]
    codes = arguments[1].cat.codes.to_numpy()
    assert after["reach"] == np.mean([len({codes[cell], *codes[near]}) > 1 for cell, near in enumerate(nearest)])


def test_a_metric_is_given_codes_and_neighbours():
    """Two types far apart, whose cells alternate between two batches."""
    labels, batch = np.repeat([0, 1], 4), np.tile([0, 1], 4)
    embedding = np.arange(8.0)[:, None] + 100 * labels[:, None]
    cells = EmbeddedCells(embedding, embedding, batch, labels)
    assert cells.neighbors.shape == cells.distances.shape == (8, 8)
    assert (cells.neighbors[:, 0] == np.arange(8)).all()
    assert cells.distances[0].tolist() == [0, 1, 2, 3, 104, 105, 106, 107]
    assert len(set(zip(cells.clusters, labels, strict=True))) == 2


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [
        ("total", "bio conservation", "'total' is the name of a mean of metrics: choose another name"),
        ("NMI", "bio conservation", "there is metric 'NMI' already"),
        ("mine", "bio", "unknown group of metrics 'bio': choose one of 'bio conservation', 'batch correction'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(name, group, message):
    with pytest.raises(ValueError, match=message):
        register_metric(name, Metric(lambda cells: 0.0, group))
    assert tuple(list_metrics()) == ALL_METRICS
