"""Run a benchmark: plan, fetch, spread over workers, tabulate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedscgen._extras import missing_extra
from fedscgen._files import lock_folder
from fedscgen.benchmark._cost import estimate_seconds
from fedscgen.benchmark._folder import ResultsFolder, is_done
from fedscgen.benchmark._pool import CPU, WorkerProcess, check_devices, choose_jobs, run_tasks
from fedscgen.benchmark._read_spec import read_spec
from fedscgen.benchmark._tables import PLAN
from fedscgen.benchmark._tasks import plan, unique_tasks

if TYPE_CHECKING:
    from fedscgen.benchmark._spec import Spec
    from fedscgen.benchmark._tasks import Task

logger = logging.getLogger(__name__)

_NEEDED = ("scib_metrics", "harmonypy", "pooch")


@dataclass(frozen=True)
class BenchmarkSummary:
    """How many tasks a run had, and how they ended.

    Parameters
    ----------
    n_tasks
        All that the specification asks for.
    n_reused
        Those that were finished before this run began.
    n_failed
        Those that failed in this run.
    """

    n_tasks: int
    n_reused: int
    n_failed: int

    def __str__(self) -> str:
        n_run = self.n_tasks - self.n_reused - self.n_failed
        return f"{self.n_tasks} tasks: {n_run} run, {self.n_reused} finished before, {self.n_failed} failed."


def run_benchmark(
    spec: str | Path | Spec,
    folder: str | Path,
    *,
    devices: Sequence[str] = (CPU,),
    jobs: int | None = None,
    threads: int = 1,
    data_dir: str | Path | None = None,
    extra_data: Mapping[str, str | Path] | None = None,
    show_progress: bool = True,
) -> BenchmarkSummary:
    """Run what a specification asks for, and tabulate it.

    Finished tasks in the folder are not run again, so that an interrupted run goes on where it stopped; failed ones
    are tried once more. A task's result doesn't depend on the number of workers, nor on the order of tasks.

    Parameters
    ----------
    spec
        A TOML file, the name of a specification that comes with the package, or one that has been read.
    folder
        Where results go: ``summary.md`` and ``summary.csv`` (means and standard deviations over seeds),
        ``results.csv`` (one row per metric), ``distributions.csv``, ``comparisons.csv``, ``failures.csv``, and what the
        run needs to go on. It is made where it is missing.
    devices
        ``"cpu"``, or numbers of GPUs as CUDA counts them.
    jobs
        Number of worker processes, which are spread over the devices. By default one per GPU, or one per core.
    threads
        CPU threads per worker. Results of training vary in the last digits with it, so keep it through a benchmark.
    data_dir
        Folder in which published data are looked for first; what is missing is downloaded.
    extra_data
        As in :func:`read_spec`: your own files, beside the specification's data.
    show_progress
        Show a progress bar.

    Returns
    -------
    How many tasks there were, had been finished before, and failed.

    Raises
    ------
    SpecError, FileNotFoundError
        The specification can't be run.
    BlockingIOError
        Another run is using the folder.
    ModuleNotFoundError
        The extra isn't installed.
    ValueError
        Bad numbers of jobs or threads, or devices that don't exist.
    KeyboardInterrupt
        Ctrl-C. Finished tasks are kept and tabulated.
    """
    _require_extra()
    spec = read_spec(spec, extra_data=extra_data)
    jobs = choose_jobs(devices, jobs, threads)
    check_devices(devices)
    planned = plan(spec)
    results = ResultsFolder(Path(folder))
    data_dir = None if data_dir is None else Path(data_dir).resolve()
    with lock_folder(results.path):
        results.write_plan(spec, planned)
        tasks = unique_tasks(planned)
        waiting = [task for task in tasks if not is_done(results.path, task)]
        fetched, n_failed = _fetch(results, waiting, data_dir)
        workers = [
            WorkerProcess(results.path, device=devices[i % len(devices)], threads=threads, data_dir=data_dir)
            for i in range(min(jobs, len(fetched)))
        ]
        try:
            n_failed += _work_through(results, _order_tasks(fetched), workers, len(tasks), show_progress)
        finally:
            results.write_tables()
    return BenchmarkSummary(len(tasks), len(tasks) - len(waiting), n_failed)


def _require_extra() -> None:
    """Say what is missing before anything runs, as each task would fail for it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise missing_extra("benchmarks need", ", ".join(missing), "benchmark")


def write_tables(folder: str | Path) -> None:
    """Tabulate what is finished in a folder of results, of a run that may still go on.

    Parameters
    ----------
    folder
        The folder of :func:`run_benchmark`.

    Raises
    ------
    FileNotFoundError
        It holds no benchmark.
    """
    if not (Path(folder) / PLAN).exists():
        raise FileNotFoundError(f"{folder} holds no benchmark: {PLAN} is missing")
    ResultsFolder(Path(folder)).write_tables()


def _order_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Put tasks on the same data together, so that workers load them once, and the longest of these first."""
    position = {key: i for i, key in enumerate(dict.fromkeys(_data_of(task) for task in tasks))}
    return sorted(tasks, key=lambda task: (position[_data_of(task)], -(estimate_seconds(task) or 0)))


def _data_of(task: Task) -> tuple[str, str]:
    return repr(task.data), task.inclusion


def _fetch(results: ResultsFolder, tasks: Sequence[Task], data_dir: Path | None) -> tuple[list[Task], int]:
    """Download what is missing; tasks whose data can't be had are noted as failed and left out."""
    from fedscgen.datasets import DATASETS, fetch_dataset

    names = {task.data.name for task in tasks if task.data.file is None and task.data.simulate is None}
    errors = {}
    for name in sorted(names & set(DATASETS)):
        try:
            fetch_dataset(name, data_dir=data_dir)
        except (OSError, ValueError) as error:
            logger.error("%s", error)
            errors[name] = f"{type(error).__name__}: {error}"
    missing = [task for task in tasks if task.data.name in errors]
    for task in missing:
        results.fail(task, errors[task.data.name])
    return [task for task in tasks if task.data.name not in errors], len(missing)


def _work_through(
    results: ResultsFolder, tasks: Sequence[Task], workers: Sequence[WorkerProcess], n_all: int, show_progress: bool
) -> int:
    """Run the tasks, and return how many failed."""
    n_failed = 0
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, disable=not show_progress) as progress:
        bar = progress.add_task("Benchmark", total=n_all, completed=n_all - len(tasks))
        for task, error in run_tasks(tasks, workers):
            if error is not None:
                n_failed += 1
                results.fail(task, error)
                logger.warning(
                    "%s on %s failed: %s (%s)", task.method.like, task.data.name, error, results.log_path(task)
                )
            progress.update(bar, advance=1, description="Benchmark" + (f", {n_failed} failed" if n_failed else ""))
    return n_failed
