"""Sections on integration: scores of all methods, differences to a baseline, the spread of LISI over cells."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedscgen._words import quantity
from fedscgen.benchmark._methods import list_methods
from fedscgen.benchmark._tables import BASELINE, QUANTILES
from fedscgen.benchmark.report._figures import Figure, Panel, draw_boxes, panel_height
from fedscgen.benchmark.report._parts import Album, dot_panels, fold, method_cell, score_table, table
from fedscgen.benchmark.report._results import metrics_of, split_by, subtract_baselines
from fedscgen.report.page import text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd

    from fedscgen.benchmark.report._results import Results
    from fedscgen.pl import Mark

_DATA = ("experiment", "dataset", "scenario")
_SIGNIFICANT = 0.05


def integration(results: Results, album: Album) -> str:
    """Show the methods' scores for each data set and scenario, as a table and as dots."""
    scores = results.of_kind("integration")
    if not len(scores):
        return ""
    parts = [(title, _show_data_set(title, part, results, album)) for title, part in split_by(scores, _DATA)]
    return (
        "<p>All batches of a data set are integrated together. In the tables, a number is the mean over seeds, ± its "
        "standard deviation where there are several; <strong>bold<span class='star'>★</span></strong> marks the best "
        "mean of a column. Rows are sorted by the total. In the charts a dot is the mean and its whisker the standard "
        "deviation: further right is better. Mind the numbers below: each axis shows just the range that its values "
        f"need.</p>{_overview(scores, results)}{_summary(scores, results, album)}{fold(parts)}"
    )


def _summary(scores: pd.DataFrame, results: Results, album: Album) -> str:
    """Totals of all methods: a figure for each experiment, and in it a panel for each data set."""
    totals = scores[scores["metric"] == "total"]
    return "".join(
        _summarize_experiment(title, part, results, album) for title, part in split_by(totals, ["experiment"])
    )


def _summarize_experiment(title: str, totals: pd.DataFrame, results: Results, album: Album) -> str:
    titled = [part.assign(data=name) for name, part in split_by(totals, ["dataset", "scenario"])]
    import pandas as pd

    together, marks = pd.concat(titled), results.marks_of(totals)
    names = list(dict.fromkeys(together["data"]))
    panels = dot_panels(together, split="data", names=names, rows="method", row_names=list(marks), marks=marks)
    figure = album.show(Figure(f"summary_{title}" if title else "summary", panels, 4, {}))
    return f"<div class='part'><h3>Total by data set{f', {text(title)}' if title else ''}</h3>{figure}</div>"


def _overview(scores: pd.DataFrame, results: Results) -> str:
    """Totals of all data sets of an experiment side by side, where there are several."""
    totals = scores[scores["metric"] == "total"]
    of_experiments = [(title, _total_table(part, results)) for title, part in split_by(totals, ["experiment"])]
    return "".join(
        f"<div class='part'><h3>Total at a glance{f', {text(title)}' if title else ''}</h3>{content}</div>"
        for title, content in of_experiments
        if content
    )


def _total_table(totals: pd.DataFrame, results: Results) -> str:
    titled = [part.assign(data=title) for title, part in split_by(totals, _DATA)]
    if len(titled) < 2:
        return ""
    import pandas as pd

    together = pd.concat(titled)
    complete = together.groupby("method")["data"].transform("nunique") == len(titled)
    mean = together[complete].assign(data="mean of all")  # the first column, by which the table is sorted
    names = ["mean of all", *dict.fromkeys(together["data"])]
    return score_table(pd.concat([mean, together]), "data", names, results.methods)


def _show_data_set(title: str, scores: pd.DataFrame, results: Results, album: Album, name: str = "integration") -> str:
    metrics, marks = metrics_of(scores), results.marks_of(scores)
    panels = dot_panels(scores, split="metric", names=metrics, rows="method", row_names=list(marks), marks=marks)
    figure = Figure(f"{name}_{title}", panels, 5, {})
    return score_table(scores, "metric", metrics, results.methods) + album.show(figure)


def expression(results: Results, album: Album) -> str:
    """Show for each data set and scenario whether the methods' corrected expression keeps its meaning."""
    scores = results.of_kind("expression")
    if not len(scores):
        return ""
    parts = [
        (title, _show_data_set(title, part, results, album, "expression")) for title, part in split_by(scores, _DATA)
    ]
    return (
        "<p>Mean expression of each cell type at each site, before and after correction: do its genes keep their order "
        "(<b>expression_spearman</b>, and its worst case), and do the genes that mark the type there still mark it "
        f"(<b>marker_overlap</b>)? Uncorrected expression would have 1 in all of these.</p>{fold(parts)}"
    )


def difference(results: Results, album: Album) -> str:
    """Show how far federated methods are from a baseline, seed by seed, and whether chance explains it."""
    pairs = _pairs(results)
    gaps = subtract_baselines(results.of_kind("integration"), pairs)
    tests = results.comparisons[results.comparisons["method"].isin([name for name, _ in pairs])]
    if not len(gaps) and not len(tests):
        return ""
    import pandas as pd

    keys = ["experiment", "scenario"]
    methods = {name: results.methods[name] for name in results.methods if name in {method for method, _ in pairs}}
    both = pd.concat([gaps.assign(table="gaps"), tests.assign(table="tests")])
    parts = []
    for title, part in split_by(both, keys):
        shown = _draw_differences(title, part[part["table"] == "gaps"], methods, album)
        parts.append((title, shown + _test_table(part[part["table"] == "tests"], results)))
    baselines = " and ".join(f"<b>{text(name)}</b>" for name in dict.fromkeys(baseline for _, baseline in pairs))
    return (
        f"<p>Each method minus the baseline {baselines} with the same seed. In the charts a dot is the mean difference "
        "over seeds and its whisker the standard deviation. A dot on the line at 0 means that the method does as well "
        f"as the baseline, one to the right that it does better.</p>{_explain_tests(tests)}{fold(parts)}"
    )


def _draw_differences(title: str, gaps: pd.DataFrame, methods: Mapping[str, Mark], album: Album) -> str:
    drawn = {name: mark for name, mark in methods.items() if name in set(gaps["method"])}
    panels = dot_panels(
        gaps,
        split="metric",
        names=metrics_of(gaps),
        rows="dataset",
        row_names=list(dict.fromkeys(gaps["dataset"])),
        marks=drawn,
        zero=True,
    )
    return album.show(Figure(f"difference_{title}", panels, 5, drawn))


def _explain_tests(tests: pd.DataFrame) -> str:
    numbers = sorted({int(n) for n in tests["n_seeds"] if n > 0})
    if not numbers:
        return ""
    floors = ", ".join(f"{2 / 2**n:.2g} with {quantity(n, 'seed')}" for n in numbers)
    n_tests = int(tests["p_value"].count())
    chance = np.ceil(_SIGNIFICANT * n_tests)
    hopeless = 2 / 2 ** numbers[-1] >= _SIGNIFICANT
    return (
        "<p>The tables hold the median difference over seeds and the p-value of a Wilcoxon signed-rank test "
        "(two-sided) of whether differences lie evenly around 0; <strong>bold*</strong> marks p below 0.05. Few seeds "
        f"can't give a small p: the smallest that the test can give is {floors}"
        f"{', so that nothing here can fall below 0.05' if hopeless else ''}. The p-values aren't corrected for the "
        f"number of tests: even if no method differed, up to {chance:.0f} of the {n_tests:,} tests would be expected "
        "below 0.05. A large p doesn't prove that two methods are equal: look at the size of the difference.</p>"
    )


def _test_table(tests: pd.DataFrame, results: Results) -> str:
    """A table with one row per data set and method, and one column per metric."""
    if not len(tests):
        return ""
    metrics, rows = metrics_of(tests), []
    for (data, method, baseline), part in tests.groupby(["dataset", "method", "baseline"], sort=False):
        by_metric = {row.metric: row for row in part.itertuples()}
        cells = "".join(_test_cell(by_metric.get(metric)) for metric in metrics)
        rows.append(
            f"<tr>{method_cell(method, results.methods)}<td>{text(data)}</td><td>{text(baseline)}</td>"
            f"<td class='number'>{int(part['n_seeds'].max())}</td>{cells}</tr>"
        )
    return table(["Method", "Data", "Baseline", "Seeds", *metrics], rows, n_texts=3)


def _test_cell(row: Any) -> str:
    if row is None or row.median_difference != row.median_difference:
        return "<td class='number'>–</td>"
    shown, p = f"{round(row.median_difference, 3) + 0.0:+.3f}", f"p {row.p_value:.3f}"
    p = "p –" if row.p_value != row.p_value else "p < 0.001" if row.p_value < 0.001 else p
    if row.p_value < _SIGNIFICANT:
        shown = f"<strong>{shown}*</strong>"
    return f"<td class='number'>{shown}<br><small>{p}</small></td>"


def _pairs(results: Results) -> list[tuple[str, str]]:
    """Method and baseline of every test, or else each method and scGen; methods that pool all cells are left out."""
    tested = results.comparisons[["method", "baseline"]].drop_duplicates().itertuples(index=False, name=None)
    pairs = list(tested) or [(name, BASELINE) for name in results.methods]
    centralized = {name for name, method in list_methods().items() if method.centralized}
    return [(name, baseline) for name, baseline in pairs if name not in centralized]


def lisi(results: Results, album: Album) -> str:
    """Box plots of iLISI and cLISI over cells, for each data set."""
    known = results.distributions
    known = known[known["kind"].isin(["integration", "batch_out"])]
    if not len(known):
        return ""
    parts = []
    for _, of_kind in known.groupby("kind", sort=False):
        for named, part in split_by(of_kind, ["experiment", "scenario", "held_out"]):
            title = named or "all batches together"
            panels = [_boxes(name, of_data, results) for name, of_data in split_by(part, ["dataset", "metric"])]
            parts.append((title, album.show(Figure(f"lisi_{title}", panels, 4, {}))))
    return (
        "<p>From how many batches (<b>iLISI</b>: further right is better) and from how many cell types (<b>cLISI</b>: "
        "further left is better, 1 is ideal) do a cell's neighbours come? A box holds the middle half of the cells, "
        "its thick line is the median, and the whiskers reach from 5 to 95 percent of the cells. The axis ends at the "
        "number of batches or types, the largest value possible. Where there are several seeds, their quantiles are "
        f"averaged.</p>{fold(parts)}"
    )


def _boxes(title: str, known: pd.DataFrame, results: Results) -> Panel:
    marks = results.marks_of(known)
    quantiles = known.groupby("method")[list(QUANTILES)].mean().dropna()
    boxes = [
        (row, mark, quantiles.loc[name].to_numpy())
        for row, (name, mark) in enumerate(marks.items())
        if name in quantiles.index
    ]
    largest = max(float(known["n_groups"].max()), 1.0)
    medians = "; ".join(f"{name} {quantiles.at[name, 'q50']:.2f}" for name in marks if name in quantiles.index)
    draw = partial(draw_boxes, rows=list(marks), boxes=boxes, largest=largest)
    return Panel(title, f"{title}, medians: {medians}", draw, panel_height(list(marks)))
