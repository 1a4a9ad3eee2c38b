"""Numbers about a result: integration scores, and what privacy costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics import list_metrics
from fedscgen.pl._axes import finish, name_above, take_axes
from fedscgen.pl._style import SITE_COLOURS, make_marks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

_GROUPS = ("bio conservation", "batch correction")
_OTHERS = "means and others"


def scores(
    table: pd.DataFrame,
    *,
    scored_on: Mapping[str, str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw integration scores as a table: a row for each embedding, a column for each metric.

    Shades run from 0 to 1. Rows of one name are repeats, such as seeds or bootstraps: their mean is shown, ± their
    standard deviation, and how many there are.

    Parameters
    ----------
    table
        Scores by metric, as of :func:`fedscgen.metrics.metrics_table`, or of several tables one below the other; the
        index names the embedding or method.
    scored_on
        What a metric was scored on, by its name. ``None``: what the registered metric says of itself, such as "90
        nearest neighbours".
    ax, show, save
        As in :func:`training`.

    Returns
    -------
    As in :func:`training`.

    Raises
    ------
    ValueError
        The table has no row or no column.
    """
    if table.empty:
        raise ValueError("the table of scores is empty: measure an embedding first, as metrics_table does")
    groups = _group_metrics(table)
    names = [name for members in groups.values() for name in members]
    repeats = table[names].astype(float).groupby(level=0, sort=False)
    means, spread, n_repeats = repeats.mean(), repeats.std(), repeats.size()
    ax, own = take_axes(ax, (1.8 + 0.75 * len(names), 2.6 + 0.4 * len(means)))
    ax.imshow(np.clip(means, 0, 1), vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
    for (row, column), mean in np.ndenumerate(means.to_numpy()):
        ax.text(
            column,
            row,
            _write_score(mean, spread.iat[row, column]),
            ha="center",
            va="center",
            color="white" if mean > 0.6 else "black",
            fontsize="small",
        )
    ax.set_xticks(range(len(names)), [_describe(name, scored_on) for name in names], rotation=40, ha="right")
    ax.set_yticks(range(len(means)), [f"{name} (n = {n})" if n > 1 else str(name) for name, n in n_repeats.items()])
    ax.tick_params(length=0, labelsize="small")
    _name_groups(ax, {title: len(members) for title, members in groups.items()})
    return finish(ax, own, show, save)


def privacy(
    audit: pd.DataFrame,
    *,
    leakage: str = "attack_auc",
    quality: str = "total",
    chance: float | None = 0.5,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw what an audit's attack found out against the quality of the integration.

    Up and to the left is better. Several rows of a method are repeats, such as seeds: a point is their mean, and its
    whiskers their standard deviations.

    Parameters
    ----------
    audit
        One row per run: the columns ``leakage`` and ``quality``, and ``"method"``, what was run.
    leakage
        Column that says how well the attack did, such as the area under its ROC curve.
    quality
        Column with an integration score.
    chance
        What the attack would reach by guessing; a line marks it. ``None``: no line.
    ax, show, save
        As in :func:`training`.

    Returns
    -------
    As in :func:`training`.

    Raises
    ------
    KeyError
        A column is missing.
    ValueError
        The table has no row.
    """
    for name in ("method", leakage, quality):
        if name not in audit:
            raise KeyError(f"the audit has no column {name!r}; it has {', '.join(map(repr, audit)) or 'none'}")
    if audit.empty:
        raise ValueError("the table of the audit is empty: run an attack first")
    repeats = audit.groupby("method", sort=False)[[leakage, quality]]
    means, spread = repeats.mean(), repeats.std()
    ax, own = take_axes(ax, (5, 4))
    if chance is not None:
        ax.axvline(chance, color="grey", lw=1, ls="--", zorder=0, label="guessing")
    for name, mark in zip(means.index, make_marks(len(means), SITE_COLOURS), strict=True):
        x, y = means.loc[name]
        dx, dy = (None if np.isnan(value) else value for value in spread.loc[name])
        ax.errorbar(x, y, yerr=dy, xerr=dx, color=mark.colour, marker=mark.marker, ls="", label=str(name))
    ax.set(xlabel=leakage.replace("_", " "), ylabel=quality.replace("_", " "))
    name_above(ax)
    return finish(ax, own, show, save)


def _group_metrics(table: pd.DataFrame) -> dict[str, list[str]]:
    """Columns by what they ask; means, and whatever isn't registered, come last."""
    known = list_metrics()
    groups: dict[str, list[str]] = {group: [] for group in (*_GROUPS, _OTHERS)}
    for name in table:
        groups[known[name].group if name in known else _OTHERS].append(str(name))
    return {group: names for group, names in groups.items() if names}


def _describe(name: str, scored_on: Mapping[str, str] | None) -> str:
    metric = list_metrics().get(name)
    said = scored_on.get(name, "") if scored_on is not None else metric.scored_on if metric else ""
    better = " (less is better)" if metric is not None and metric.lower_is_better else ""
    return f"{name}{better}\n{said}" if said else f"{name}{better}"


def _write_score(mean: float, spread: float) -> str:
    if np.isnan(mean):
        return "–"
    return f"{mean:.2f}" if np.isnan(spread) else f"{mean:.2f}\n± {spread:.2f}"


def _name_groups(ax: Axes, sizes: Mapping[str, int]) -> None:
    """Titles above the columns, and lines between those of different groups."""
    start = 0
    for title, size in sizes.items():
        ax.text(start + (size - 1) / 2, -0.7, title, ha="center", va="bottom", fontsize="small")
        start += size
        if start < sum(sizes.values()):
            ax.axvline(start - 0.5, color="white", lw=4)
