"""What sections of a benchmark's report are made of: figures, tables of scores, parts that fold away."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.benchmark._meanings import is_lower_better
from fedscgen.benchmark.report._figures import (
    Dot,
    Figure,
    Panel,
    draw_dots,
    inline_panels,
    panel_height,
    save_panels,
)
from fedscgen.benchmark.report._results import format_mean, summarize_seeds
from fedscgen.pl import Group
from fedscgen.report.groups import SHAPES, legend
from fedscgen.report.page import text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from fedscgen.pl import Mark

_UNFOLDED = 2  # parts that are shown without folding


class Album:
    """Figures of a report: each goes to files in a folder, under a name of its own, and into the page.

    Parameters
    ----------
    folder
        An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, figure: Figure) -> Figure:
        """Write the figure's files; its name is made fit for one, and unlike those before."""
        slug = re.sub(r"[^A-Za-z0-9.-]+", "_", figure.name).strip("_.")[:80]
        name, copies = slug, 1
        while (self._folder / f"{name}.svg").exists():
            name, copies = f"{slug}_{copies + 1}", copies + 1
        named = Figure(name, figure.panels, figure.columns, figure.legend)
        save_panels(named, self._folder)
        return named

    def show(self, figure: Figure) -> str:
        """Write the figure's files and return its panels, with a legend of its marks, as HTML."""
        if not figure.panels:
            return ""
        shown = zip(figure.panels, inline_panels(self.save(figure)), strict=True)
        panels = "".join(
            f"<figure><figcaption>{text(panel.title)}</figcaption><div class='plot panel' role='img' "
            f"aria-label='{text(panel.alt)}'>{svg}</div></figure>"
            for panel, svg in shown
        )
        return f"{mark_legend(figure.legend)}<div class='panels'>{panels}</div>"


def mark_legend(marks: Mapping[str, Mark]) -> str:
    """Explain marks; nothing where there are none."""
    return legend(Group(tuple(marks), tuple(marks.values()), np.empty(0, dtype=np.int64))) if marks else ""


def fold(parts: Iterable[tuple[str, str]]) -> str:
    """Parts under their titles; where there are many, all but the first are folded away."""
    parts = list(parts)
    if len(parts) <= _UNFOLDED:
        titled = ((f"<h3>{text(title)}</h3>" if title else "", content) for title, content in parts)
        return "".join(f"<div class='part'>{title}{content}</div>" for title, content in titled)
    return "".join(
        f"<details{'' if i else ' open'}><summary>{text(title)}</summary>{content}</details>"
        for i, (title, content) in enumerate(parts)
    )


def table(heads: Sequence[str], rows: Iterable[str], *, n_texts: int = 1) -> str:
    """A table that scrolls inside its box and keeps its first column in view.

    Parameters
    ----------
    heads
        Names of the columns.
    rows
        The rows as HTML.
    n_texts
        Leading columns that hold text; the others hold numbers.
    """
    cells = "".join(
        f"<th scope='col'{'' if i < n_texts else ' class=number'}>{text(head)}</th>" for i, head in enumerate(heads)
    )
    return (
        f"<div class='scroll wide' tabindex='0'><table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody>"
        "</table></div>"
    )


def method_cell(name: str, marks: Mapping[str, Mark]) -> str:
    """Head of a method's row: its mark and name."""
    mark = marks[name]
    shape = f"<svg viewBox='0 0 16 16' fill='{mark.colour}' aria-hidden='true'>{SHAPES[mark.marker]}</svg>"
    return f"<th scope='row' class='method'>{shape}{text(name)}</th>"


def score_table(
    scores: pd.DataFrame,
    column: str,
    names: Sequence[str],
    marks: Mapping[str, Mark],
    *,
    lower: Collection[str] = (),
) -> str:
    """Methods x one of the scores' columns, best method first: mean ± standard deviation over seeds.

    Parameters
    ----------
    scores
        ``method``, ``seed``, ``value`` and ``column``.
    column, names
        What the table's columns stand for, and their order. Methods are sorted by the first of them.
    marks
        Marks of all methods.
    lower
        Columns of which less is better, besides those named like a metric of which it is.
    """
    summary = summarize_seeds(scores, ["method", column]).reset_index()
    means, sds = (summary.pivot(index="method", columns=column, values=part) for part in ("mean", "sd"))
    means, sds = means.reindex(columns=list(names)), sds.reindex(columns=list(names))
    n_seeds = scores.dropna(subset="value").groupby("method")["seed"].nunique()
    lower = {name for name in names if name in lower or is_lower_better(name)}
    order = means.sort_values(list(names)[:1], ascending=names[0] in lower, kind="stable").index
    best = {name: means[name].round(3).agg("min" if name in lower else "max") for name in names}
    rows = []
    for method in order:
        cells = (_score_cell(means.at[method, n], sds.at[method, n], best=round(means.at[method, n], 3) == best[n])
                 for n in names)  # fmt: skip
        n = f"<td class='number'>{n_seeds.get(method, 0)}</td>"
        rows.append(f"<tr>{method_cell(method, marks)}{''.join(cells)}{n}</tr>")
    return table(["Method", *names, "Seeds"], rows)


def _score_cell(mean: float, sd: float, *, best: bool) -> str:
    shown, around = format_mean(mean, sd)
    if best:
        shown = f"<strong>{shown}<span class='star' title='best mean'>★</span></strong>"
    return f"<td class='number'>{shown}{f' <small>{around}</small>' if around else ''}</td>"


def dot_panels(
    scores: pd.DataFrame,
    *,
    split: str,
    names: Sequence[str],
    rows: str,
    row_names: Sequence[str],
    marks: Mapping[str, Mark],
    zero: bool = False,
) -> list[Panel]:
    """One panel for each of ``names`` in the column ``split``: dots of mean and standard deviation over seeds.

    Parameters
    ----------
    scores
        ``method``, ``seed``, ``value`` and the columns named below.
    split, names
        What the panels stand for, and their order.
    rows, row_names
        What a panel's rows stand for, and their order. Methods share a row unless they are the rows.
    marks
        Marks of the methods that are shown, in their order.
    zero
        Whether 0 is marked by a line.
    """
    keys = [split, "method"] if rows == "method" else [split, rows, "method"]
    summary = summarize_seeds(scores, keys).dropna(subset="mean").reset_index()
    lanes = {name: 0 if rows == "method" else lane for lane, name in enumerate(marks)}
    n_lanes = max(lanes.values(), default=0) + 1
    height = panel_height(row_names, n_lanes)
    panels = []
    for name in names:
        part = summary[summary[split] == name]
        if not len(part):
            continue
        dots = [
            Dot(row_names.index(row), marks[method], mean, sd, lanes[method], n_lanes)
            for row, method, mean, sd in zip(part[rows], part["method"], part["mean"], part["sd"], strict=True)
        ]
        panels.append(
            Panel(name, _alt_text(name, part, rows), partial(draw_dots, rows=row_names, dots=dots, zero=zero), height)
        )
    return panels


def _alt_text(name: str, part: pd.DataFrame, rows: str) -> str:
    said = []
    for row, method, mean, sd in zip(part[rows], part["method"], part["mean"], part["sd"], strict=True):
        where = method if rows == "method" else f"{row}, {method}"
        said.append(f"{where} {' '.join(format_mean(mean, sd)).strip()}")
    return f"{name}: {'; '.join(said)}"
