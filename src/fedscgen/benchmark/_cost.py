"""An estimate of how long a benchmark will take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedscgen.benchmark._folder import is_done
from fedscgen.benchmark._methods import find_method
from fedscgen.benchmark._pool import CPU, choose_jobs
from fedscgen.benchmark._read_spec import read_spec
from fedscgen.benchmark._tasks import plan, size_of, unique_tasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fedscgen.benchmark._spec import Spec
    from fedscgen.benchmark._tasks import Task

_HIDDEN, _GENES = 800, 2_000  # where the task doesn't say
_SECONDS_PER_WEIGHT = 1.5e-10  # per cell and epoch, on one CPU thread of a server of the 2020s
_SECONDS_PER_STEP = 2e-3  # overhead of a mini-batch
_SECONDS_TO_MEASURE = 3e-3  # one cell by all metrics
_SECONDS_PER_PAIR = 2e-9  # of cells: silhouettes and exact neighbours
_BATCH_SIZE = {"scvi": 128, "scanvi": 128}


def estimate_seconds(task: Task) -> float | None:
    """Seconds on one CPU thread, within a factor of a few; ``None`` where the size of the data isn't known yet."""
    size = size_of(task.data)
    if size.n_cells is None:
        return None
    settings = find_method(task.method.like).complete(task.method.settings)
    weights = _count_weights(task, settings, size.n_genes or _GENES)
    step = _SECONDS_PER_WEIGHT * weights + _SECONDS_PER_STEP / _BATCH_SIZE.get(task.method.like, 50)
    n_measured = 0 if task.kind == "expression" else task.n_rounds or 1
    to_measure = _SECONDS_TO_MEASURE * size.n_cells + _SECONDS_PER_PAIR * size.n_cells**2
    return size.n_cells * _count_epochs(task, settings, size.n_cells) * step + n_measured * to_measure


def _count_epochs(task: Task, settings: dict[str, Any], n_cells: int) -> float:
    """How often training passes over the cells; 0 for methods whose training isn't known to last."""
    if find_method(task.method.like).in_rounds or task.method.like == "local":
        from fedscgen.federation import FederationSettings

        default = FederationSettings.from_preset(settings.get("preset", "default"))
        n_rounds: int = task.n_rounds or settings.get("n_rounds", default.n_rounds)
        n_epochs: int = task.n_epochs or settings.get("n_epochs", default.n_epochs)
        return n_rounds * n_epochs
    n_passes: float = 0
    if task.method.like in _BATCH_SIZE:
        n_passes = settings.get("max_epochs") or min(400, 8e6 / n_cells)
    elif task.method.like == "scgen":
        n_passes = settings.get("max_epochs", 100)
    return n_passes


def _count_weights(task: Task, settings: dict[str, Any], n_genes: int) -> float:
    n_hidden: int = (settings.get("model") or {}).get("n_hidden", 128 if task.method.like in _BATCH_SIZE else _HIDDEN)
    return 2 * n_hidden * (n_genes + n_hidden)


def describe_plan(
    spec: str | Path | Spec,
    folder: str | Path,
    *,
    devices: Sequence[str] = (CPU,),
    jobs: int | None = None,
    threads: int = 1,
    extra_data: Mapping[str, str | Path] | None = None,
) -> str:
    """Say what a run would do, and about how long it would take.

    Parameters
    ----------
    spec, folder, devices, jobs, threads, extra_data
        As in :func:`run_benchmark`. Nothing is written, downloaded or run.

    Raises
    ------
    SpecError, FileNotFoundError, ValueError
        As in :func:`run_benchmark`.
    """
    spec = read_spec(spec, extra_data=extra_data)
    jobs = choose_jobs(devices, jobs, threads)
    planned = plan(spec)
    done = {run.task.id for run in planned if is_done(Path(folder), run.task)}
    lines = [f"{spec.name}: {spec.description}", ""]
    lines.append(f"{'experiment':32}{'data':>5}{'methods':>9}{'seeds':>7}{'tasks':>7}{'done':>6}{'CPU time':>12}")
    left: dict[str, float | None] = {}
    for experiment in spec.experiments:
        tasks = unique_tasks(run for run in planned if run.experiment == experiment.name)
        new = {task.id: estimate_seconds(task) for task in tasks if task.id not in done | left.keys()}
        left |= new
        lines.append(
            f"{experiment.name[:31]:32}{len(experiment.data):5}{len(experiment.methods):9}{len(experiment.seeds):7}"
            f"{len(tasks):7}{sum(task.id in done for task in tasks):6}{_format_duration(new.values()):>12}"
        )
    known = [seconds for seconds in left.values() if seconds is not None]
    lines += [
        "",
        f"{len(left)} tasks to run, {len(done)} finished. Tasks that experiments share are run and counted once.",
        f"About {_format_duration(left.values())} of one CPU thread, {_format_duration([sum(known) / jobs])} with "
        f"{jobs} at a time; within a factor of three or so, and much less on GPUs.",
    ]
    if len(known) < len(left):
        lines.append(
            f"? stands for {len(left) - len(known)} tasks on data whose size isn't known before they are here."
        )
    return "\n".join(lines)


def _format_duration(seconds: Iterable[float | None]) -> str:
    values = list(seconds)
    total = sum(value for value in values if value is not None)
    unknown = " + ?" if None in values else ""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if total >= size:
            return f"{total / size:.1f} {unit}{unknown}"
    return f"{total:.0f} s{unknown}"
