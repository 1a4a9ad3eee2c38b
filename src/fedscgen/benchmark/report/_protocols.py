"""Sections on protocols: what was scored on labels that no method had seen, and with those that were altered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.benchmark._best_of import add_best_of
from fedscgen.benchmark._kinds import KINDS, kinds_scored_with
from fedscgen.benchmark._meanings import is_lower_better
from fedscgen.benchmark.report._figures import Figure
from fedscgen.benchmark.report._parts import Album, dot_panels, score_table
from fedscgen.benchmark.report._results import metrics_of, split_by
from fedscgen.report.page import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from fedscgen.benchmark._kinds import Scoring
    from fedscgen.benchmark.report._results import Results
    from fedscgen.pl import Mark

GIVEN = "<p class='note'>Scored with the labels that the methods were given, which flatters those that use them.</p>"
_AXES = ("dataset", "scenario", "condition")
_READING = (
    "<p class='note'>A number is the mean over seeds, ± its standard deviation where there are several; "
    "<strong>bold<span class='star'>★</span></strong> marks the best mean of a column. In the charts a dot is the mean "
    "and its whisker the standard deviation; each axis shows just the range that its values need.</p>"
)
_BEST_OF = (
    "<p><em>Best of</em> several settings of a competitor: for each number, the setting that reached the best one. "
    "Nobody could choose it without the labels that count, so that it favours the competitor.</p>"
)


def lead(results: Results) -> str:
    """Say in a sentence whether methods had seen the labels that they are scored with."""
    unseen = [KINDS[name].title for name in kinds_scored_with("unseen labels") if name in set(results.scores["kind"])]
    if not unseen:
        return (
            "<p><strong>Nothing here was scored on labels that the methods hadn't seen.</strong> Scores with the "
            "labels that they were given flatter methods that use labels.</p>"
        )
    return (
        "<p><strong>This page begins with what was scored on labels that no method had seen</strong> "
        f"({text(', '.join(unseen))}). What was scored with the labels that methods were given comes after it and is "
        "marked as such: it flatters methods that use labels.</p>"
    )


def show_unseen(results: Results, album: Album) -> str:
    """Show scores on labels that no method had seen."""
    return _show_kinds("unseen labels", results, album)


def show_altered(results: Results, album: Album) -> str:
    """Show controls and faults: scores with the true labels, where others were given."""
    return _show_kinds("altered labels", results, album)


def _show_kinds(scoring: Scoring, results: Results, album: Album) -> str:
    parts = [
        _show_experiment(part, results, album)
        for kind in kinds_scored_with(scoring)
        for _, part in split_by(results.of_kind(kind), ["experiment"])
    ]
    return _READING + "".join(parts) if parts else ""


def _show_experiment(scores: pd.DataFrame, results: Results, album: Album) -> str:
    """What is done, the scores that count most side by side, and all metrics folded away."""
    name, kind = scores["experiment"].iloc[0], KINDS[scores["kind"].iloc[0]]
    scores = add_best_of(scores, results.likes)
    marks = results.mark_all(scores)
    tables = "".join(_compare(metric, scores, marks, album) for metric in kind.summary)
    details = "".join(
        f"<details><summary>All metrics: {text(title)}</summary>"
        f"{score_table(part, 'metric', metrics_of(part), marks)}</details>"
        for title, part in split_by(scores, _AXES)
    )
    note = _BEST_OF if set(marks) - set(results.methods) else ""
    return f"<div class='part'><h3>{text(name)}</h3><p>{text(kind.meaning)}</p>{note}{tables}{details}</div>"


def _compare(metric: str, scores: pd.DataFrame, marks: Mapping[str, Mark], album: Album) -> str:
    """One score of all methods: data sets and conditions side by side, and the mean of all."""
    import pandas as pd

    scores = scores[scores["metric"] == metric].dropna(subset="value")
    parts = [part.assign(data=title) for title, part in split_by(scores, _AXES)]
    if not parts:
        return ""
    together, names = pd.concat(parts), [part["data"].iloc[0] for part in parts]
    drawn = {name: mark for name, mark in marks.items() if name in set(scores["method"])}
    panels = dot_panels(together, split="data", names=names, rows="method", row_names=list(drawn), marks=drawn)
    figure = album.show(Figure(f"{scores['experiment'].iloc[0]}_{metric}", panels, 4, {}))
    columns = names
    if len(names) > 1:
        complete = together.groupby("method")["data"].transform("nunique") == len(names)
        together = pd.concat([together[complete].assign(data="mean of all"), together])
        columns = ["mean of all", *names]
    lower = is_lower_better(metric)
    table = score_table(together, "data", columns, marks, lower=columns if lower else ())
    return f"<h4>{text(metric)}{' (lower is better)' if lower else ''}</h4>{table}{figure}"
