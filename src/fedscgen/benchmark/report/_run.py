"""Sections on the benchmark itself: what was run, what it took, what failed, with which settings and versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fedscgen._words import quantity
from fedscgen.benchmark._kinds import KINDS
from fedscgen.benchmark._tables import PLAN
from fedscgen.benchmark.report._parts import fold, mark_legend, method_cell, table
from fedscgen.benchmark.report._protocols import lead
from fedscgen.benchmark.report._results import explain_metrics, metrics_of
from fedscgen.report.page import facts, pairs, text, volume

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from fedscgen.benchmark.report._results import Results

_KINDS = {name: kind.title for name, kind in KINDS.items()} | {"classification": "classification of a batch left out"}
_LONGEST_SETTING = 600  # characters
_HEADED = ("name", "description")


def head(results: Results) -> str:
    """Say what was run: first how many of each, then their names."""
    tasks = results.scores.drop_duplicates("task")
    kinds = ", ".join(_KINDS.get(kind, kind) for kind in dict.fromkeys(results.scores["kind"]))
    data = ", ".join(dict.fromkeys([*results.scores["dataset"], *results.failures["dataset"]]))
    counts = {
        "experiment": results.scores["experiment"].nunique(),
        "data set": results.scores["dataset"].nunique(),
        "method": len(results.methods),
        "seed": results.scores["seed"].nunique(),
    }
    numbers = {noun if n == 1 else f"{noun}s": f"{n:,}" for noun, n in counts.items()}
    numbers |= {"tasks done": f"{len(tasks):,}", "tasks failed": f"{results.failures['task'].nunique():,}"}
    numbers["of computing"] = format_duration(float(tasks["seconds"].sum()))
    listed = {"Experiments": kinds, "Data": data}
    named = "".join(f"<p><b>{name}:</b> {text(value)}.</p>" for name, value in listed.items() if value)
    said = "".join(f"<p>{text(line)}</p>" for line in results.spec["description"].split("\n\n") if line.strip())
    shown = f"<div class='part'>{named}{mark_legend(results.methods)}</div>"
    return f"<div class='lead'>{said}{lead(results)}</div>{facts(numbers)}{shown}"


def format_duration(seconds: float) -> str:
    """A time in words: ``"12 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, small in ((3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size:,} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def cost(results: Results) -> str:
    """Median time and peak memory of a task, by method and data set."""
    tasks = results.scores.drop_duplicates(["task", "method"])  # a task may serve several methods, and two kinds
    if not len(tasks):
        return ""
    devices = list(dict.fromkeys(tasks["device"]))
    parts = []
    for (kind, device), part in tasks.groupby(["kind", "device"], sort=False):
        where = f", on {device}" if len(devices) > 1 else ""
        parts.append((f"{_KINDS.get(kind, kind)}{where}", _cost_table(part, results)))
    where = f" All ran on {text(devices[0])}." if len(devices) == 1 else ""
    return (
        f"<p>Median time of a task, from reading the data to the last metric, and below it the peak memory.{where} "
        "Times tell methods apart only where the tasks had the machine to themselves, or shared it in the same way."
        f"</p>{fold(parts)}"
    )


def _cost_table(tasks: pd.DataFrame, results: Results) -> str:
    medians = tasks.groupby(["method", "dataset"])[["seconds", "peak_memory_mb"]].median()
    data, rows = list(dict.fromkeys(tasks["dataset"])), []
    for method in results.marks_of(tasks):
        cells = (_cost_cell(medians, method, name) for name in data)
        rows.append(f"<tr>{method_cell(method, results.methods)}{''.join(cells)}</tr>")
    return table(["Method", *data], rows)


def _cost_cell(medians: pd.DataFrame, method: str, data: str) -> str:
    if (method, data) not in medians.index:
        return "<td class='number'>–</td>"
    seconds, memory = medians.loc[(method, data)]
    shown = format_duration(seconds) if seconds == seconds else "–"
    return f"<td class='number'>{shown}<br><small>{volume(memory * 1e6) if memory == memory else '–'}</small></td>"


def failures(results: Results) -> str:
    """List what failed, and where its log is."""
    failed = results.failures
    if not len(failed):
        return ""
    rows = (
        f"<tr>{method_cell(row.method, results.methods)}<td>{text(row.dataset)}{_batch_note(row.held_out)}</td>"
        f"<td>{text(row.experiment)}</td><td class='number'>{row.seed:.0f}</td><td class='error'>{text(row.error)}</td>"
        f"<td><code>{text(row.log)}</code></td></tr>"
        for row in failed.itertuples()
    )
    heads = ["Method", "Data", "Experiment", "Seed", "Error", "Log"]
    return (
        f"<p>{quantity(failed['task'].nunique(), 'task')} failed. Means above are over the seeds that are left. "
        "Running the benchmark again tries what failed anew.</p>"
        f"{table(heads, rows, n_texts=len(heads))}"
    )


def _batch_note(batch: str) -> str:
    return f"<br><small>{text(batch)} held out</small>" if batch else ""


def explanations(results: Results) -> str:
    """One line about each metric that occurs."""
    meanings = explain_metrics()
    names = [name for name in metrics_of(results.scores) if meanings.get(name)]
    if not names:
        return ""
    rows = "".join(f"<tr><th scope='row'>{text(name)}</th><td>{text(meanings[name])}</td></tr>" for name in names)
    return (
        "<p>Unless said otherwise, metrics are scaled so that higher is better, and lie between 0 and 1 (ARI and rank "
        "correlations may be negative). "
        f"They say:</p><div class='scroll'><table><tbody>{rows}</tbody></table></div>"
    )


def settings(results: Results) -> str:
    """The specification, and the versions and devices that ran it."""
    spec = {name: _format_setting(value) for name, value in results.spec.items() if name not in _HEADED}
    given = pairs("Settings", spec) if spec else ""
    versions = _collect_versions(results.scores["versions"])
    threads = results.scores["threads"].map("{:.0f}".format)
    machine = {"devices": results.scores["device"], "threads per task": threads}
    versions |= {name: ", ".join(map(str, dict.fromkeys(values))) for name, values in machine.items()}
    return f"<div class='columns'>{given}{pairs('Versions and devices', versions)}</div>"


def _format_setting(value: object) -> str:
    if isinstance(value, str):
        return value
    written = json.dumps(value, ensure_ascii=False)
    if len(written) > _LONGEST_SETTING and isinstance(value, list | dict):
        return f"{len(value):,} entries, see {PLAN}"
    return written


def _collect_versions(lines: Iterable[str]) -> dict[str, str]:
    """All versions of each package; more than one where a benchmark was resumed after an update."""
    found: dict[str, dict[str, None]] = {}
    for line in dict.fromkeys(lines):
        for entry in filter(None, map(str.strip, line.split(";"))):
            package, _, version = entry.rpartition(" ")
            found.setdefault(package, {})[version] = None
    return {package: ", ".join(versions) for package, versions in found.items()}
