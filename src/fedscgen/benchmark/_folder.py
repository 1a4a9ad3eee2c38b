"""A folder of results: what is finished, what failed, and the tables of all of it.

``plan.json`` says what belongs to the benchmark. A finished task is ``tasks/<id>.json``. This file appears whole, and
after everything else of the task is on disk: if it is there, the task is done.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._files import write_whole
from fedscgen.benchmark._comparison import compare
from fedscgen.benchmark._summary import summarize, to_markdown
from fedscgen.benchmark._tables import PLAN, TABLES
from fedscgen.benchmark._tasks import Planned, Task

if TYPE_CHECKING:
    import pandas as pd

    from fedscgen.benchmark._compute import Outcome
    from fedscgen.benchmark._spec import Spec


def is_done(folder: Path, task: Task) -> bool:
    """Whether a task is finished in a folder of results, which need not exist."""
    return _record(folder, task).exists()


def _record(folder: Path, task: Task) -> Path:
    return folder / "tasks" / f"{task.id}.json"


class ResultsFolder:
    """The folder in which a benchmark grows.

    Parameters
    ----------
    path
        The folder; it is made where it's missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("tasks", "failures", "pictures", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def write_plan(self, spec: Spec, planned: Sequence[Planned]) -> None:
        """Keep what the benchmark consists of."""
        runs = [{"experiment": p.experiment, "method": p.method, "task": json.loads(p.task.to_json())} for p in planned]
        seeds = sorted({p.task.seed for p in planned})
        content = {"name": spec.name, "description": spec.description, "seeds": seeds, "runs": runs}
        write_whole(self.path / PLAN, json.dumps(content, indent=1).encode())

    def read_plan(self) -> list[Planned]:
        """Read what the benchmark consists of."""
        runs = json.loads((self.path / PLAN).read_text())["runs"]
        return [Planned(run["experiment"], run["method"], Task.from_json(json.dumps(run["task"]))) for run in runs]

    def log_path(self, task: Task) -> Path:
        """Where a task's messages go."""
        return self.path / "logs" / f"{task.id}.log"

    def finish(self, task: Task, outcome: Outcome, **facts: Any) -> None:
        """Keep a task's outcome, with facts about its run."""
        if outcome.picture:
            picture = io.BytesIO()
            np.savez_compressed(picture, **outcome.picture)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
            write_whole(self.path / "pictures" / f"{task.id}.npz", picture.getvalue())
        content = {"rows": outcome.rows, "distributions": outcome.distributions, "facts": facts, "task": asdict(task)}
        write_whole(_record(self.path, task), json.dumps(content).encode())
        self._failure(task).unlink(missing_ok=True)

    def fail(self, task: Task, error: str) -> None:
        """Keep the reason why a task failed; it will be tried again."""
        write_whole(self._failure(task), json.dumps({"error": error}).encode())

    def write_tables(self) -> None:
        """Write results, distributions, comparisons, failures and a summary as CSV, the summary as Markdown too."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        distributions: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        planned = self.read_plan()
        for run in planned:
            names = _names(run)
            if is_done(self.path, run.task):
                record = json.loads(_record(self.path, run.task).read_text())
                rows += [{**names, **row, **record["facts"]} for row in record["rows"]]
                distributions += [{**names, **row} for row in record["distributions"]]
            elif self._failure(run.task).exists():
                error = json.loads(self._failure(run.task).read_text())["error"]
                failures.append({**names, "error": error, "log": str(self.log_path(run.task).relative_to(self.path))})
        results = pd.DataFrame(rows, columns=list(TABLES["results"]))
        results = results.astype({"n_rounds": "Int64", "n_epochs": "Int64"})
        self._write_table("results", results)
        self._write_table("distributions", pd.DataFrame(distributions, columns=list(TABLES["distributions"])))
        self._write_table("comparisons", compare(results))
        self._write_table("failures", pd.DataFrame(failures, columns=list(TABLES["failures"])))
        summary = summarize(results, planned)
        self._write_table("summary", summary)
        title = json.loads((self.path / PLAN).read_text())["name"]
        write_whole(self.path / "summary.md", to_markdown(summary, title).encode())

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        write_whole(self.path / f"{name}.csv", table.to_csv(index=False).encode())

    def _failure(self, task: Task) -> Path:
        return self.path / "failures" / f"{task.id}.json"


def _names(run: Planned) -> dict[str, Any]:
    task = run.task
    held_out = "" if task.held_out is None else f"batch {task.held_out + 1}"
    return {
        "experiment": run.experiment,
        "dataset": task.data.name,
        "scenario": task.inclusion,
        "condition": task.condition,
        "method": run.method,
        "seed": task.seed,
        "held_out": held_out,
        "classifier": "",
        "cell_type": "",
        "task": task.id,
    }
