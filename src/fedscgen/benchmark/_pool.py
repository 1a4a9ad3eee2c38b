"""Worker processes, each on a device, and tasks that are spread over them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fedscgen.benchmark._tasks import Task

CPU = "cpu"


class WorkerProcess:
    """A process that runs tasks; one that dies is replaced.

    Parameters
    ----------
    folder
        Folder of results.
    device
        ``"cpu"``, or the number of a GPU as CUDA counts them.
    threads
        CPU threads of the process.
    data_dir
        Folder in which published data are looked for first.
    """

    def __init__(self, folder: Path, *, device: str, threads: int, data_dir: Path | None = None) -> None:
        arguments = [str(folder)] + ([] if data_dir is None else [str(data_dir)])
        self._command = [sys.executable, "-m", f"{__package__}._worker", *arguments]
        self._environment = {**os.environ, **_environment(device, threads)}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, task: Task) -> str | None:
        """Run a task to its end; return the reason if it failed."""
        process = self._ensure_process()
        try:
            process.stdin.write(task.to_json() + "\n")  # type: ignore[union-attr]  # both are pipes
            process.stdin.flush()  # type: ignore[union-attr]
            answer = process.stdout.readline()  # type: ignore[union-attr]
        except (BrokenPipeError, ValueError):
            answer = ""
        return json.loads(answer)["error"] if answer else self._explain_death(process)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Free the pipes, once :meth:`run` has returned."""
        if self._process is not None:
            with self._process, contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()  # type: ignore[union-attr]
            self._process = None

    def _ensure_process(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise RuntimeError("this worker has been stopped")
            if self._process is None:
                # in a session of its own, so that Ctrl-C reaches the run alone, which then stops its workers
                self._process = subprocess.Popen(  # noqa: S603  (this interpreter, on our own module)
                    self._command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            return self._process

    def _explain_death(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        self.close()
        if code == -signal.SIGKILL:
            return "the process was killed: it may have run out of memory"
        return f"the process died of {signal.Signals(-code).name if code < 0 else f'exit code {code}'}: see the log"


def choose_jobs(devices: Sequence[str], jobs: int | None, threads: int) -> int:
    """Check devices and numbers, and choose the number of workers: by default one per GPU, or one per core."""
    bad = [device for device in devices if device != CPU and not device.isdecimal()]
    if bad or not devices:
        raise ValueError(f"devices {', '.join(devices) or 'none'}: name 'cpu' or numbers of GPUs, such as 0,1")
    if threads < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f"jobs={jobs}, threads={threads}: at least 1 each")
    return jobs or (len(devices) if CPU not in devices else max(1, (os.cpu_count() or 1) // threads))


def check_devices(devices: Sequence[str]) -> None:
    """Refuse GPUs that this computer doesn't have.

    Raises
    ------
    ValueError
        The message names one, and how many there are.
    """
    numbers = [int(device) for device in devices if device != CPU]
    if not numbers:
        return
    import torch  # takes seconds

    n_gpus = torch.cuda.device_count()
    hidden = n_gpus > 0 and "CUDA_VISIBLE_DEVICES" in os.environ  # there may be more than torch is shown
    if not hidden and max(numbers) >= n_gpus:
        those = f"the GPUs here are 0 to {n_gpus - 1}" if n_gpus else "torch finds no GPU here; name 'cpu'"
        raise ValueError(f"device {max(numbers)} does not exist: {those}")


def run_tasks(tasks: Sequence[Task], workers: Sequence[WorkerProcess]) -> Iterator[tuple[Task, str | None]]:
    """Spread tasks over workers in their order, and yield each as it ends, with the reason if it failed.

    However the iteration ends, the workers are stopped.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[Task, str | None]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    threads = [threading.Thread(target=_take_tasks, args=(worker, waiting, ended), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            yield ended.get()
    finally:
        for worker in workers:
            worker.stop()
        for thread, worker in zip(threads, workers, strict=True):
            thread.join()
            worker.close()


def _take_tasks(worker: WorkerProcess, waiting: Any, ended: Any) -> None:
    while True:
        try:
            task = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            ended.put((task, worker.run(task)))
        except RuntimeError:  # stopped
            return


def _environment(device: str, threads: int) -> dict[str, str]:
    """Variables that must be there before libraries are loaded."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    parallel = "true" if threads > 1 else "false"
    return {
        **dict.fromkeys(pools, str(threads)),
        "CUDA_VISIBLE_DEVICES": "" if device == CPU else device,
        "JAX_PLATFORMS": "cpu",  # metrics must not reserve the GPU's memory
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={parallel} intra_op_parallelism_threads={threads}",
        "PYTHONHASHSEED": "0",
    }
