"""The main scores as tables of methods x data sets, over the seeds: first those on labels that no method had seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedscgen.benchmark._best_of import add_best_of
from fedscgen.benchmark._kinds import KINDS, Scoring
from fedscgen.benchmark._meanings import is_lower_better
from fedscgen.benchmark._tables import SUMMARY_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from fedscgen.benchmark._tasks import Planned

_SCORED_WITH: Mapping[Scoring, str] = {
    "unseen labels": "Scored on labels that no method had seen",
    "altered labels": "Scored with true labels, where methods were given altered ones",
    "given labels": "Scored with the labels that methods were given, which flatters those that use them",
}
_EXPLANATION = (
    "Mean ± standard deviation over seeds (n - 1). **Bold**: the best mean of a column. -: no result. The last column "
    "is the mean over the data sets that have any result, for methods that have one on all of these. *Best of* several "
    "settings: for each number, the setting that reached the best one, chosen with the labels that count."
)


def summarize(results: pd.DataFrame, planned: Iterable[Planned]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the summary scores, and of what happens to expression.

    Parameters
    ----------
    results
        Tidy results, as a benchmark writes them, finished or not.
    planned
        All runs of the benchmark, which give the order.

    Returns
    -------
    One row per ``experiment``, ``metric``, ``method``, ``dataset``, ``scenario`` and ``condition``, of the scores that
    count most in each kind of experiment: ``n_seeds`` that have a value, ``mean``, and ``sd`` (``n - 1``; NaN for a
    single seed), over batches in turn where there are any; and ``scored_with``, which says whether a method had seen
    the labels. Experiments whose labels no method had seen come first.
    """
    import pandas as pd

    planned = list(planned)
    results = add_best_of(results, {run.method: run.task.method.like for run in planned})
    values = results.astype({"value": float}).groupby([*SUMMARY_KEYS, "seed"], sort=False)["value"].mean()
    summary = values.groupby(list(SUMMARY_KEYS)).agg(n_seeds="count", mean="mean", sd="std").reset_index()
    kinds = {run.experiment: run.task.kind for run in planned}
    asked = _list_asked(planned) | dict.fromkeys(
        key for key in summary[list(SUMMARY_KEYS)].itertuples(index=False, name=None)
        if key[1] in KINDS[kinds[key[0]]].summary
    )  # fmt: skip
    table = pd.DataFrame(list(asked), columns=list(SUMMARY_KEYS)).merge(summary, how="left", on=list(SUMMARY_KEYS))
    table["scored_with"] = [KINDS[kinds[name]].scoring for name in table["experiment"]]
    order = table["scored_with"].map(list(_SCORED_WITH).index).astype(int).argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True).fillna({"n_seeds": 0}).astype({"n_seeds": int})


def _list_asked(planned: Iterable[Planned]) -> dict[tuple[str, ...], None]:
    """Keys of the summary's rows in the order of the plan; those of the best of several settings aren't among them."""
    runs = dict.fromkeys(
        (r.experiment, r.method, r.task.data.name, r.task.inclusion, r.task.condition, r.task.kind) for r in planned
    )
    return dict.fromkeys(
        (experiment, metric, method, dataset, scenario, condition)
        for experiment, method, dataset, scenario, condition, kind in runs
        for metric in KINDS[kind].summary
    )


def to_markdown(summary: pd.DataFrame, title: str) -> str:
    """Write what :func:`summarize` returns as a page, with a table for each experiment and metric that has results."""
    parts = [f"# {title}", _EXPLANATION]
    shown = summary[summary.groupby(["experiment", "metric"])["mean"].transform("count") > 0]
    for scoring, of_scoring in shown.groupby("scored_with", sort=False):
        parts.append(f"## {_SCORED_WITH[scoring]}")
        for (experiment, metric), part in of_scoring.groupby(["experiment", "metric"], sort=False):
            lower = ", lower is better" if is_lower_better(metric) else ""
            parts.append(f"### {experiment}: {metric}{lower}\n\n{_format_table(part, best='min' if lower else 'max')}")
    return "\n\n".join(parts) + "\n"


def _format_table(part: pd.DataFrame, best: Literal["min", "max"]) -> str:
    """Methods as rows and data sets as columns, in the order in which they come."""
    part = part.assign(data=part["dataset"])
    for key in ("scenario", "condition"):
        if part[key].nunique() > 1:
            part["data"] += ", " + part[key]
    order = {"index": list(dict.fromkeys(part["method"])), "columns": list(dict.fromkeys(part["data"]))}
    means, sds = (part.pivot(index="method", columns="data", values=value).reindex(**order) for value in ("mean", "sd"))
    overall = means.dropna(axis="columns", how="all").mean(axis="columns", skipna=False)
    means, sds = (table.reset_index(drop=True) for table in (means, sds))
    columns = [_format_column(best, means[name], sds[name]) for name in order["columns"]]
    columns.append(_format_column(best, overall.reset_index(drop=True)))
    heads = ["Method", *order["columns"], "mean of all"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *zip(order["index"], *columns, strict=True)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _format_column(which: Literal["min", "max"], means: pd.Series, sds: pd.Series | None = None) -> list[str]:
    best, cells = means.round(3).agg(which), []
    for i, mean in means.items():
        spread = "" if sds is None or sds[i] != sds[i] else f" ± {sds[i]:.3f}"
        shown = "-" if mean != mean else f"{mean:.3f}{spread}"
        cells.append(f"**{shown}**" if round(mean, 3) == best else shown)
    return cells
