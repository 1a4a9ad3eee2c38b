"""Whole runs with real worker processes: interrupted, resumed, failing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cells import make_adata
from fedscgen._files import lock_folder
from fedscgen.benchmark import _run, run_benchmark, write_tables

pytest.importorskip("scib_metrics")

SPEC = """
seeds = [0, 1]
[data.drawn]
simulate = { n_sites = 2, n_types = 3, n_cells = 150, n_genes = 60 }
[methods.fedscgen]
n_rounds = 2
n_epochs = 1
model = { n_hidden = 16 }
[methods.broken]
like = "pca"
n_components = -1

[[experiments]]
name = "integration"
kind = "integration"
data = ["drawn"]
methods = ["pca", "fedscgen", METHODS]

[[experiments]]
name = "expression"
kind = "expression"
data = ["drawn"]
methods = ["fedscgen"]
seeds = [0]

[[experiments]]
name = "hidden"
kind = "hidden_labels"
data = ["drawn"]
methods = ["fedscgen"]
shares = [0.5]
seeds = [0]

[[experiments]]
name = "tuning"
kind = "tuning"
data = ["drawn"]
methods = ["fedscgen"]
n_rounds = 2
n_epochs = [1]
seeds = [0]

[[experiments]]
name = "left out"
kind = "batch_out"
data = ["drawn"]
methods = ["fedscgen"]
classifiers = ["k-NN", "k-means"]
seeds = [0]
"""
N_TASKS = 9
MEASURED = ["seconds", "peak_memory_mb"]


def write_spec(folder, more=""):
    (folder / "spec.toml").write_text(SPEC.replace(", METHODS", more))
    return folder / "spec.toml"


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run that nothing has interrupted, by two workers."""
    folder = tmp_path_factory.mktemp("benchmark")
    summary = run_benchmark(write_spec(folder), folder / "out", jobs=2, show_progress=False)
    assert (summary.n_tasks, summary.n_reused, summary.n_failed) == (N_TASKS, 0, 0)
    return folder / "out"


def table(folder, name="results"):
    return pd.read_csv(folder / f"{name}.csv").drop(columns=MEASURED, errors="ignore")


def records(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "tasks").glob("*.json")}


def start(spec, out, jobs=1):
    """A run in a process of its own."""
    code = f"from fedscgen.benchmark import run_benchmark as r; r({str(spec)!r}, {str(out)!r}, jobs={jobs})"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)  # noqa: S603  (our own code)


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def workers_of(out):
    """Processes that work for a folder, as /proc tells."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"fedscgen.benchmark._worker" in words and str(out).encode() in words:
            found.append(int(entry.parent.name))
    return found


def test_results_are_tidy(whole_run):
    results = pd.read_csv(whole_run / "results.csv", keep_default_na=False)
    integration = results[results["kind"] == "integration"]
    assert set(integration["method"]) == {"pca", "fedscgen"}
    assert set(integration["metric"]) >= {"NMI", "kBET", "iLISI", "PCR", "total"}
    assert not integration.duplicated(["method", "seed", "metric"]).any()
    expression = results[results["kind"] == "expression"].set_index("metric")["value"].astype(float)
    assert set(expression.index) == {"expression_spearman", "expression_spearman_min", "marker_overlap"}
    assert expression["expression_spearman_min"] <= expression["expression_spearman"] <= 1
    assert 0 <= expression["marker_overlap"] <= 1
    hidden = results[results["kind"] == "hidden_labels"].set_index("metric")
    assert {"total", "scib total", "accuracy", "macro-F1", "k-NN accuracy"} <= set(hidden.index)
    assert set(hidden["condition"]) == {"50 % hidden"}
    tuning = results[results["kind"] == "tuning"]
    assert set(zip(tuning["n_rounds"], tuning["n_epochs"], strict=True)) == {("1", "1"), ("2", "1")}
    left_out = results[results["experiment"] == "left out"]
    assert set(left_out["held_out"]) == {"site_1", "site_2"}
    assert set(left_out["kind"]) == {"batch_out", "classification"}
    assert set(left_out.loc[left_out["kind"] == "classification", "classifier"]) == {"k-NN", "k-means"}
    assert (results["seconds"].astype(float) > 0).all()
    assert (results["peak_memory_mb"].astype(float) > 50).all()
    assert results["versions"].str.contains("fedscgen .*; torch ").all()
    quantiles = pd.read_csv(whole_run / "distributions.csv")
    assert (quantiles[["q05", "q25", "q50", "q75", "q95"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert quantiles["q95"].max() <= 3.001
    assert len(list((whole_run / "pictures").iterdir())) == 2


def test_a_summary_is_written_with_the_tables(whole_run):
    results, summary = (pd.read_csv(whole_run / f"{name}.csv") for name in ("results", "summary"))
    totals = results[(results["kind"] == "integration") & (results["metric"] == "total")].groupby("method")["value"]
    assert summary["scored_with"].iloc[0] == "unseen labels"
    shown = summary[(summary["metric"] == "total") & (summary["experiment"] == "integration")].set_index("method")
    assert list(shown.index) == ["pca", "fedscgen"]
    assert shown["mean"].to_dict() == pytest.approx(totals.mean().to_dict())
    assert shown["sd"].to_dict() == pytest.approx(totals.std().to_dict())
    page = (whole_run / "summary.md").read_text()
    assert f"{totals.mean()['pca']:.3f} ± {totals.std()['pca']:.3f}" in page
    assert "## expression: marker_overlap" in page


def test_finished_tasks_are_not_run_again(whole_run):
    before = records(whole_run)
    summary = run_benchmark(whole_run.parent / "spec.toml", whole_run, show_progress=False)
    assert (summary.n_tasks, summary.n_reused) == (N_TASKS, N_TASKS)
    assert records(whole_run) == before


def test_a_run_killed_in_the_middle_goes_on_to_the_same_result(whole_run, tmp_path):
    out = tmp_path / "out"
    run = start(whole_run.parent / "spec.toml", out)
    wait_for(lambda: (out / "tasks").exists() and len(records(out)) >= 2)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    wait_for(lambda: not workers_of(out), 20)
    before = records(out)
    assert 2 <= len(before) < N_TASKS
    summary = run_benchmark(whole_run.parent / "spec.toml", out, jobs=1, show_progress=False)
    assert (summary.n_tasks, summary.n_reused, summary.n_failed) == (N_TASKS, len(before), 0)
    assert {name: time for name, time in records(out).items() if name in before} == before
    for name in ("results", "distributions", "comparisons", "summary"):
        pd.testing.assert_frame_equal(table(out, name), table(whole_run, name))


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(whole_run, tmp_path):
    out = tmp_path / "out"
    run = start(whole_run.parent / "spec.toml", out)
    wait_for(lambda: (out / "tasks").exists() and len(records(out)) >= 1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not workers_of(out)
    assert len(table(out)), "tables of what is finished"


def test_a_failing_task_and_a_dying_worker_do_not_stop_the_rest(tmp_path):
    """The worker is killed in its first task; the method broken fails each time."""
    import threading

    out = tmp_path / "out"
    killed = []

    def kill_first_worker():
        wait_for(lambda: workers_of(out))
        wait_for(lambda: list((out / "logs").iterdir()))
        killed.append(workers_of(out)[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_first_worker)
    killer.start()
    summary = run_benchmark(write_spec(tmp_path, ', "broken"'), out, jobs=1, show_progress=False)
    killer.join()
    failures = table(out, "failures").set_index("method")["error"]
    assert (summary.n_tasks, summary.n_failed) == (N_TASKS + 2, 3)
    assert sum("killed: it may have run out of memory" in error for error in failures) == 1
    assert failures["broken"].str.contains("n_components").all()
    assert "Traceback" in (out / table(out, "failures").set_index("method").loc["broken", "log"].iloc[0]).read_text()
    again = run_benchmark(tmp_path / "spec.toml", out, jobs=1, show_progress=False)
    assert (again.n_reused, again.n_failed) == (N_TASKS - 1, 2)
    assert set(table(out, "failures")["method"]) == {"broken"}


def test_two_runs_do_not_share_a_folder(whole_run):
    with (
        lock_folder(whole_run),
        pytest.raises(BlockingIOError, match=r"another run is writing to .*: wait for it, or choose another folder"),
    ):
        run_benchmark(whole_run.parent / "spec.toml", whole_run, show_progress=False)


def test_data_that_cannot_be_had_fail_their_tasks_alone_and_files_of_the_user_join_in(tmp_path, monkeypatch):
    import fedscgen.datasets as datasets

    def offline(name, **_):
        raise OSError(f"{name} can't be fetched: no route")

    monkeypatch.setattr(datasets, "fetch_dataset", offline)
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    text = SPEC.replace(", METHODS", "").split("[[experiments]]")[:2]
    (tmp_path / "spec.toml").write_text("[[experiments]]".join(text).replace('["drawn"]', '["drawn", "PBMC"]'))
    options = {"extra_data": {"mine": tmp_path / "cells.h5ad"}, "jobs": 1, "show_progress": False}
    summary = run_benchmark(tmp_path / "spec.toml", tmp_path / "out", **options)
    assert (summary.n_tasks, summary.n_failed) == (12, 4)
    assert table(tmp_path / "out", "failures")["error"].str.contains("PBMC can't be fetched: no route").all()
    assert set(table(tmp_path / "out")["dataset"]) == {"drawn", "mine"}
    page = (tmp_path / "out" / "summary.md").read_text()
    assert "| Method | drawn | PBMC | mine | mean of all |" in page


def test_a_folder_without_a_benchmark_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no benchmark: plan.json is missing"):
        write_tables(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_nothing_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(_run, "_NEEDED", ("scib_metrics", "no_such_package"))
    with pytest.raises(ModuleNotFoundError, match=r"benchmarks need no_such_package: add the extra .*\[benchmark\]"):
        run_benchmark("smoke", tmp_path / "out")
    assert not (tmp_path / "out").exists()
