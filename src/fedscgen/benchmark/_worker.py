"""A process that runs one task after another, as they arrive at its standard input.

``python -m fedscgen.benchmark._worker FOLDER [DATA_DIR]``. Each line of input is a task, and is answered by a line of
JSON. What libraries write goes into the task's log. The process ends when its input ends, even in the middle of a task,
so that none is left behind when the run is killed.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import resource
import sys
import time
import traceback
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen import __version__
from fedscgen._processes import end_after
from fedscgen.benchmark._folder import ResultsFolder
from fedscgen.benchmark._tasks import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = ("scvi-tools", "torch", "anndata", "scanpy", "scib-metrics", "scikit-learn", "numpy", "pandas")


def main(folder: ResultsFolder, data_dir: str | None) -> None:
    """Answer tasks until the input ends."""
    lines: queue.Queue[str] = queue.Queue()
    end_after(lambda: _listen(lines))
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        while True:
            task = Task.from_json(lines.get())
            with _redirect_output(folder.log_path(task)):
                error = _attempt(task, folder, data_dir)
            answers.write(json.dumps({"error": error}) + "\n")


def _listen(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)


def _attempt(task: Task, folder: ResultsFolder, data_dir: str | None) -> str | None:
    """Run a task and keep its outcome; if it fails, return the error as one line."""
    try:
        _run(task, folder, data_dir)
    except Exception as error:  # noqa: BLE001  (it is reported, and other tasks may do well)
        traceback.print_exc()
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _run(task: Task, folder: ResultsFolder, data_dir: str | None) -> None:
    import torch

    from fedscgen.benchmark._compute import compute

    on_gpu = torch.cuda.is_available()
    _forget_peak_memory()
    began = time.perf_counter()
    outcome = compute(task, data_dir=data_dir, accelerator="gpu" if on_gpu else "cpu")
    folder.finish(
        task,
        outcome,
        seconds=round(time.perf_counter() - began, 3),
        peak_memory_mb=round(_peak_memory() / 2**20, 1),
        device=f"cuda:{torch.cuda.get_device_name()}" if on_gpu else "cpu",
        threads=torch.get_num_threads(),
        versions=_versions(),
    )


def _versions() -> str:
    found = [f"fedscgen {__version__}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)


def _forget_peak_memory() -> None:
    """Have Linux measure the peak anew; elsewhere it remains that of all tasks so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory() -> int:
    """Largest resident memory of this process, in bytes; processes that it starts are not counted."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@contextmanager
def _redirect_output(path: Path) -> Iterator[None]:
    """Send standard output and error, of C libraries too, to a file."""
    kept = [os.dup(stream) for stream in (1, 2)]
    with path.open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(ResultsFolder(Path(sys.argv[1])), sys.argv[2] if len(sys.argv) > 2 else None)
