"""The main scores as tables of methods x data sets, over the seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.benchmark._tables import SUMMARY_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from fedscgen.benchmark._tasks import Planned

_METRICS = {
    "integration": ("total", "bio", "batch"),
    "expression": ("expression_spearman", "expression_spearman_min", "marker_overlap"),
}
_EXPLANATION = (
    "Mean ± standard deviation over seeds (n - 1). **Bold**: the best mean of a column. -: no result. The last column "
    "is the mean over the data sets that have any result, for methods that have one on all of these."
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
    One row per ``experiment``, ``metric``, ``method``, ``dataset`` and ``scenario`` of kind integration or expression:
    ``n_seeds`` that have a value, ``mean``, and ``sd`` (``n - 1``; NaN for a single seed).
    """
    import pandas as pd

    runs = dict.fromkeys((r.experiment, r.method, r.task.data.name, r.task.inclusion, r.task.kind) for r in planned)
    asked = [
        (experiment, metric, method, dataset, scenario)
        for experiment, method, dataset, scenario, kind in runs
        for metric in _METRICS.get(kind, ())
    ]
    values = results.astype({"value": float}).groupby(list(SUMMARY_KEYS))["value"]
    summary = values.agg(n_seeds="count", mean="mean", sd="std").reset_index()
    table = pd.DataFrame(asked, columns=list(SUMMARY_KEYS)).merge(summary, how="left", on=list(SUMMARY_KEYS))
    return table.fillna({"n_seeds": 0}).astype({"n_seeds": int})


def to_markdown(summary: pd.DataFrame, title: str) -> str:
    """Write what :func:`summarize` returns as a page, with a table for each experiment and metric that has results."""
    tables = [
        f"## {experiment}: {metric}\n\n{_format_table(part)}"
        for (experiment, metric), part in summary.groupby(["experiment", "metric"], sort=False)
        if part["mean"].notna().any()
    ]
    return "\n\n".join([f"# {title}", _EXPLANATION, *tables]) + "\n"


def _format_table(part: pd.DataFrame) -> str:
    """Methods as rows and data sets as columns, in the order in which they come."""
    several = part["scenario"].nunique() > 1
    part = part.assign(data=part["dataset"] + (", " + part["scenario"] if several else ""))
    order = {"index": list(dict.fromkeys(part["method"])), "columns": list(dict.fromkeys(part["data"]))}
    means, sds = (part.pivot(index="method", columns="data", values=value).reindex(**order) for value in ("mean", "sd"))
    overall = means.dropna(axis="columns", how="all").mean(axis="columns", skipna=False)
    means, sds = (table.reset_index(drop=True) for table in (means, sds))
    columns = [_format_column(means[name], sds[name]) for name in order["columns"]]
    columns.append(_format_column(overall.reset_index(drop=True)))
    heads = ["Method", *order["columns"], "mean of all"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *zip(order["index"], *columns, strict=True)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _format_column(means: pd.Series, sds: pd.Series | None = None) -> list[str]:
    best, cells = means.round(3).max(), []
    for i, mean in means.items():
        spread = "" if sds is None or sds[i] != sds[i] else f" ± {sds[i]:.3f}"
        shown = "-" if mean != mean else f"{mean:.3f}{spread}"
        cells.append(f"**{shown}**" if round(mean, 3) == best else shown)
    return cells
