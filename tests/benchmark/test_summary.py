"""The summary: what is written of finished, unfinished and failed runs."""

from dataclasses import replace

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
            "condition": run.task.condition,
            "method": run.method,
            "seed": run.task.seed,
            "metric": metric,
            "value": values[run.method, run.task.data.name][run.task.seed],
        }
        for run in planned
        for metric in (["total", "NMI"] if run.task.kind != "expression" else ["marker_overlap"])
        if run.task.seed < len(values.get((run.method, run.task.data.name), ()))
    ]
    return pd.DataFrame(
        rows, columns=["experiment", "kind", "dataset", "scenario", "condition", "method", "seed", "metric", "value"]
    )


VALUES = {
    ("scgen", "small"): (0.5, 0.6, 0.7),
    ("scgen", "large"): (0.9, 0.9, 0.9),
    ("fedscgen", "small"): (0.61, 0.62, 0.63),
    ("fedscgen", "large"): (0.7,),
}


def test_a_summary_holds_mean_and_standard_deviation_over_seeds():
    summary = summarize(results(runs(), VALUES), runs())
    assert set(summary["metric"]) == {"total", "bio", "batch", "scib total", "TDI"}
    total = summary[summary["metric"] == "total"].set_index(["method", "dataset"])
    for key, values in VALUES.items():
        assert total.loc[key, "n_seeds"] == len(values)
        assert total.loc[key, "mean"] == pytest.approx(np.mean(values))
    assert total.loc[("scgen", "small"), "sd"] == pytest.approx(np.std(VALUES["scgen", "small"], ddof=1))
    assert np.isnan(total.loc[("fedscgen", "large"), "sd"]), "a single seed has no spread"


def test_a_table_has_the_order_of_the_specification_and_marks_the_best():
    page = to_markdown(summarize(results(runs(), VALUES), runs()), "Mine")
    assert page.startswith("# Mine\n\n")
    assert page.count("### ") == 1, "bio and batch have no results"
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
    assert "## " not in to_markdown(summary, "Begun")


def test_scenarios_and_kinds_have_columns_and_tables_of_their_own():
    planned = runs(scenarios=("all", "dropped"), data=("small",)) + runs(kind="expression", data=("small",))
    page = to_markdown(summarize(results(planned, VALUES), planned), "")
    assert "| Method | small, all | small, dropped | mean of all |" in page
    assert "## expression: marker_overlap\n\n| Method | small | mean of all |" in page


def test_other_kinds_are_left_out():
    planned = runs(kind="batch_out")
    assert not len(summarize(results(planned, VALUES), planned))


def test_what_no_method_had_seen_comes_first_and_pages_say_what_scores_are_of():
    hidden = Task("hidden_labels", DataSource("small"), MethodSettings("scgen"), 0, 10)
    planned = runs(data=("small",)) + [
        Planned("hidden", "scgen", replace(hidden, seed=seed, share=share)) for seed in SEEDS for share in (0.5, 0.95)
    ]
    summary = summarize(results(planned, VALUES), planned)
    assert list(dict.fromkeys(summary["scored_with"])) == ["unseen labels", "given labels"]
    page = to_markdown(summary, "Mine")
    first, second = (page.index(head) for head in ("## Scored on labels that no", "## Scored with the labels that m"))
    assert first < page.index("### hidden: total") < second < page.index("### integration: total")
    assert "| Method | small, 50 % hidden | small, 95 % hidden | mean of all |" in page


def test_batches_in_turn_are_averaged_before_seeds():
    first = Task("unlabelled_site", DataSource("d"), MethodSettings("pca"), 0, 10)
    planned = [Planned("e", "pca", replace(first, seed=seed, held_out=batch)) for seed in (0, 1) for batch in (0, 1)]
    rows = [
        {"experiment": "e", "kind": "unlabelled_site", "dataset": "d", "scenario": "all", "condition": "",
         "method": "pca", "seed": run.task.seed, "metric": "total", "value": run.task.seed + 0.5 * run.task.held_out}
        for run in planned
    ]  # fmt: skip
    total = summarize(pd.DataFrame(rows), planned).set_index("metric").loc["total"]
    assert (total["n_seeds"], total["mean"]) == (2, 0.75)
    assert total["sd"] == pytest.approx(np.sqrt(0.5))


def tuned(values):
    """Results of settings of Harmony and of our method, as ``values[method, metric]``."""
    planned = [
        Planned("e", name, Task("integration", DataSource("d"), MethodSettings(like), 0, 10))
        for name, like in (("10 PCs", "harmony"), ("20 PCs", "harmony"), ("a", "fedscgen"), ("b", "fedscgen"))
    ]
    rows = [
        {"experiment": "e", "kind": "integration", "dataset": "d", "scenario": "all", "condition": "",
         "method": run.method, "seed": 0, "metric": metric, "value": values[run.method, metric]}
        for run in planned
        for metric in ("total", "TDI")
    ]  # fmt: skip
    return summarize(pd.DataFrame(rows), planned)


def test_the_best_of_a_competitor_s_settings_is_shown_for_each_score_and_none_of_our_own():
    values = {("10 PCs", "total"): 0.8, ("20 PCs", "total"): 0.7, ("10 PCs", "TDI"): 0.3, ("20 PCs", "TDI"): 0.2}
    values |= {(name, metric): 0.5 for name in "ab" for metric in ("total", "TDI")}
    summary = tuned(values)
    shown = summary.dropna(subset="mean").set_index(["method", "metric"])["mean"]
    assert shown["harmony, best of 2", "total"] == 0.8
    assert shown["harmony, best of 2", "TDI"] == 0.2, "of which less is better"
    assert not any(name.startswith("fedscgen") for name in summary["method"])
    page = to_markdown(summary, "")
    assert "### e: TDI, lower is better" in page
    assert "| 20 PCs | **0.200** | **0.200** |" in page
    assert "chosen with the labels that count" in page


def test_a_name_does_not_break_the_table():
    planned = runs(methods=("a|b",), data=("small",))
    page = to_markdown(summarize(results(planned, {("a|b", "small"): (0.5,)}), planned), "")
    assert r"| a\|b | **0.500** | **0.500** |" in page
