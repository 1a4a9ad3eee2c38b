"""The summary: what is written of finished, unfinished and failed runs."""

import numpy as np
import pandas as pd
import pytest

from fedscgen.benchmark._spec import DataSource, MethodSettings
from fedscgen.benchmark._summary import summarize, to_markdown
from fedscgen.benchmark._tasks import Planned, Task

SEEDS = (0, 1, 2)


def runs(methods=("scgen", "fedscgen"), data=("small", "large"), kind="integration", scenarios=("all",)):
    return [
        Planned(kind, method, Task(kind, DataSource(name), MethodSettings(method), seed, 10, scenario))
        for name in data
        for scenario in scenarios
        for method in methods
        for seed in SEEDS
    ]


def results(planned, values):
    """Rows of ``values[method, dataset]`` for each seed, under the names of ``metrics``."""
    rows = [
        {
            "experiment": run.experiment,
            "kind": run.task.kind,
            "dataset": run.task.data.name,
            "scenario": run.task.inclusion,
            "method": run.method,
            "seed": run.task.seed,
            "metric": metric,
            "value": values[run.method, run.task.data.name][run.task.seed],
        }
        for run in planned
        for metric in (["total", "NMI"] if run.task.kind == "integration" else ["marker_overlap"])
        if run.task.seed < len(values.get((run.method, run.task.data.name), ()))
    ]
    return pd.DataFrame(
        rows, columns=["experiment", "kind", "dataset", "scenario", "method", "seed", "metric", "value"]
    )


VALUES = {
    ("scgen", "small"): (0.5, 0.6, 0.7),
    ("scgen", "large"): (0.9, 0.9, 0.9),
    ("fedscgen", "small"): (0.61, 0.62, 0.63),
    ("fedscgen", "large"): (0.7,),
}


def test_a_summary_holds_mean_and_standard_deviation_over_seeds():
    summary = summarize(results(runs(), VALUES), runs())
    assert set(summary["metric"]) == {"total", "bio", "batch"}
    total = summary[summary["metric"] == "total"].set_index(["method", "dataset"])
    for key, values in VALUES.items():
        assert total.loc[key, "n_seeds"] == len(values)
        assert total.loc[key, "mean"] == pytest.approx(np.mean(values))
    assert total.loc[("scgen", "small"), "sd"] == pytest.approx(np.std(VALUES["scgen", "small"], ddof=1))
    assert np.isnan(total.loc[("fedscgen", "large"), "sd"]), "a single seed has no spread"


def test_a_table_has_the_order_of_the_specification_and_marks_the_best():
    page = to_markdown(summarize(results(runs(), VALUES), runs()), "Mine")
    assert page.startswith("# Mine\n\n")
    assert page.count("## ") == 1, "bio and batch have no results"
    table = page.split("## integration: total\n\n")[1]
    assert table.splitlines() == [
        "| Method | small | large | mean of all |",
        "| --- | ---: | ---: | ---: |",
        "| scgen | 0.600 ± 0.100 | **0.900 ± 0.000** | **0.750** |",
        "| fedscgen | **0.620 ± 0.010** | 0.700 | 0.660 |",
    ]


def test_what_is_missing_is_shown_and_not_averaged():
    some = {key: VALUES[key] for key in [("scgen", "small"), ("scgen", "large"), ("fedscgen", "small")]}
    planned = runs(data=("small", "unfinished", "large"))
    table = to_markdown(summarize(results(planned, some), planned), "").splitlines()
    assert table[-2:] == [
        "| scgen | 0.600 ± 0.100 | - | **0.900 ± 0.000** | **0.750** |",
        "| fedscgen | **0.620 ± 0.010** | - | - | - |",
    ]


def test_without_any_result_there_is_no_table():
    summary = summarize(results(runs(), {}), runs())
    assert (summary["n_seeds"] == 0).all()
    assert "##" not in to_markdown(summary, "Begun")


def test_scenarios_and_kinds_have_columns_and_tables_of_their_own():
    planned = runs(scenarios=("all", "dropped"), data=("small",)) + runs(kind="expression", data=("small",))
    page = to_markdown(summarize(results(planned, VALUES), planned), "")
    assert "| Method | small, all | small, dropped | mean of all |" in page
    assert "## expression: marker_overlap\n\n| Method | small | mean of all |" in page


def test_other_kinds_are_left_out():
    planned = runs(kind="batch_out")
    assert not len(summarize(results(planned, VALUES), planned))


def test_a_name_does_not_break_the_table():
    planned = runs(methods=("a|b",), data=("small",))
    page = to_markdown(summarize(results(planned, {("a|b", "small"): (0.5,)}), planned), "")
    assert r"| a\|b | **0.500** | **0.500** |" in page
