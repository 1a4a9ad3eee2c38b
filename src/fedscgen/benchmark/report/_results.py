"""The tables of a results folder, read and summed up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from fedscgen._words import join_names
from fedscgen.benchmark._meanings import MEANINGS
from fedscgen.benchmark._methods import list_methods
from fedscgen.benchmark._tables import PLAN, TABLES, TEST_KEYS, TEXT_COLUMNS
from fedscgen.metrics import METRIC_GROUPS, SCIB_GROUPS, MetricGroup, list_metrics
from fedscgen.pl import MARKERS, SITE_COLOURS, Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import pandas as pd

_SCENARIOS = {"all": "all cell types", "dropped": "minor types dropped", "combined": "minor types combined"}


@dataclass(frozen=True)
class Results:
    """What a results folder holds; a table that isn't there is empty."""

    spec: Mapping[str, Any]
    scores: pd.DataFrame
    distributions: pd.DataFrame
    comparisons: pd.DataFrame
    failures: pd.DataFrame
    pictures: tuple[Path, ...]
    methods: Mapping[str, Mark]  # in the order in which they are shown

    def marks_of(self, table: pd.DataFrame) -> dict[str, Mark]:
        """Marks of the methods in a table."""
        return {name: mark for name, mark in self.methods.items() if name in set(table["method"])}

    def mark_all(self, table: pd.DataFrame) -> dict[str, Mark]:
        """Marks of the methods in a table, and of those in it that no task ran."""
        others = [name for name in dict.fromkeys(table["method"]) if name not in self.methods]
        return self.marks_of(table) | {name: _make_mark(len(self.methods) + i) for i, name in enumerate(others)}

    @property
    def likes(self) -> dict[str, str]:
        """The registered method behind each name, as far as the plan tells."""
        return {run["method"]: run["task"]["method"]["like"] for run in self.spec.get("runs", ())}

    def of_kind(self, *kinds: str) -> pd.DataFrame:
        """Scores of some kinds of experiment."""
        return self.scores[self.scores["kind"].isin(kinds)]


def read_results(folder: Path) -> Results:
    """Read all tables.

    Raises
    ------
    FileNotFoundError
        ``plan.json`` or ``results.csv`` is missing.
    ValueError
        A file that can't be read or a table that lacks a column.
    """
    for name in (PLAN, "results.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: name a folder that a benchmark wrote its results to")
    spec = _read_spec(folder / PLAN)
    scores, distributions, comparisons, failures = (_read_table(folder / f"{name}.csv") for name in TABLES)
    pictures = tuple(sorted((folder / "pictures").glob("*.npz")))
    methods = _mark_methods((scores, distributions, comparisons, failures))
    return Results(spec, scores, distributions, comparisons, failures, pictures, methods)


def _read_spec(path: Path) -> Mapping[str, Any]:
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        return {"name": str(spec["name"]), "description": str(spec["description"])} | dict(spec)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a JSON object with a name and a description ({error!r}): run the benchmark again, which "
            "writes it anew"
        ) from error


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    columns = TABLES[path.stem]
    table = pd.DataFrame(columns=list(columns), dtype=str)
    if path.is_file():
        try:
            # Names stay as they are written: a batch may be called NA.
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        except ValueError as error:
            raise ValueError(f"{path} can't be read as a table ({error}): run the benchmark again") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(map(repr, missing))}: run the benchmark again")
    for column in set(columns) - TEXT_COLUMNS:
        try:
            table[column] = table[column].replace("", "nan").astype(float)
        except ValueError as error:
            raise ValueError(f"{path}, column {column!r}: {error}; run the benchmark again") from error
    return table


def _mark_methods(tables: Iterable[pd.DataFrame]) -> dict[str, Mark]:
    """Methods known by name first; neighbours in the list differ in both colour and shape."""
    known, names = list(list_methods()), list(dict.fromkeys(name for table in tables for name in table["method"]))
    names.sort(key=lambda name: known.index(name) if name in known else len(known))
    return {name: _make_mark(i) for i, name in enumerate(names)}


def _make_mark(position: int) -> Mark:
    return Mark(SITE_COLOURS[position % len(SITE_COLOURS)], MARKERS[position % len(MARKERS)], "-")


def explain_metrics() -> dict[str, str]:
    """What each metric says, in the order of display: by group, and within it first those that its mean is taken of."""
    groups = {**METRIC_GROUPS, **SCIB_GROUPS}
    members = {mean: join_names(names) for mean, names in groups.items()}
    in_a_mean = {name for names in METRIC_GROUPS.values() for name in names}
    metrics, kinds = list_metrics(), get_args(MetricGroup)
    order = sorted(metrics, key=lambda name: (kinds.index(metrics[name].group), name not in in_a_mean))
    return {
        "total": "0.6 × bio + 0.4 × batch (Luecken et al. 2022)",
        "scib total": "the same as scib-metrics defines it today: of scib bio and scib batch",
        "bio": f"bio conservation, how well cell types stay apart: mean of {members['bio']}",
        "batch": f"batch correction, how well batches mix: mean of {members['batch']}",
        "scib bio": f"mean of {members['scib bio']}",
        "scib batch": f"mean of {members['scib batch']}",
        **{name: metrics[name].meaning for name in order},
        **MEANINGS,
    }


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Metrics of a table: summary scores first, unknown ones last."""
    known, found = list(explain_metrics()), list(dict.fromkeys(table["metric"]))
    return sorted(found, key=lambda name: known.index(name) if name in known else len(known))


def summarize_seeds(table: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean and standard deviation (``n - 1``) over seeds, and their number; values that are NaN are skipped.

    Returns
    -------
    One row per combination of ``by``, with columns ``mean``, ``sd`` (NaN for a single seed) and ``n``.
    """
    of_seeds = table.groupby([*by, "seed"], sort=False)[value].mean()
    summary = of_seeds.groupby(list(by), sort=False).agg(["mean", "std", "count"])
    return summary.set_axis(["mean", "sd", "n"], axis=1)


def subtract_baselines(scores: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Take from each method's scores the baseline's of the same seed, experiment, data and metric."""
    import pandas as pd

    keys = [*TEST_KEYS, "seed"]
    values = scores.groupby(["method", *keys], sort=False)["value"].mean()
    parts = [
        (values[method] - values[baseline]).dropna().reset_index().assign(method=method, baseline=baseline)
        for method, baseline in pairs
        if {method, baseline} <= set(scores["method"])
    ]
    return pd.concat(parts) if parts else pd.DataFrame(columns=["method", "baseline", *keys, "value"])


def split_by(table: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield parts of a table, one for each combination of ``keys``, with titles.

    A title has the keys that tell parts apart, and in any case data, method and batch.
    """
    varying = [key for key in keys if table[key].nunique() > 1 or key in ("dataset", "method", "held_out")]
    for values, part in table.groupby(list(keys), sort=False):
        named = dict(zip(keys, values, strict=True))
        yield ", ".join(_format_name(key, named[key]) for key in varying if named[key]), part


def _format_name(key: str, value: str) -> str:
    if key == "scenario":
        return _SCENARIOS.get(value, value)
    return {"held_out": f"{value} held out", "experiment": f"experiment {value}"}.get(key, value)


def format_mean(mean: float, sd: float, digits: int = 3) -> tuple[str, str]:
    """Mean and ``"± sd"`` as texts; the latter is empty where there's no standard deviation."""
    if mean != mean:
        return "–", ""
    return f"{mean:.{digits}f}", "" if sd != sd else f"± {sd:.{digits}f}"
