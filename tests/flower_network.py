"""A Flower network of real processes on loopback: a SuperLink and its SuperNodes, with TLS and node authentication."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

BIN = Path(sys.executable).parent
_COMMAND_SECONDS = 120.0
_LOOK_SECONDS = 3.0


class Network:
    """Started as a context manager, it leaves no process behind."""

    def __init__(self, folder: Path, sites: list[str], settings: str = "paper") -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.app = folder / "app"
        self.port = free_port()
        self._home = folder / "flwr"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sites = sites
        self._settings = settings

    def __enter__(self) -> Self:
        site_options = [option for site in self._sites for option in ("--site", site)]
        self.run("fedscgen", "flower", "keys", str(self.keys), "--host", "localhost", *site_options)
        self.run(
            "fedscgen", "flower", "init", str(self.app), "--sites", str(len(self._sites)), "--settings", self._settings
        )
        self._home.mkdir()
        (self._home / "config.toml").write_text(
            '[superlink]\ndefault = "trial"\n\n[superlink.trial]\n'
            f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{self.keys / "ca.crt"}"\n'
        )
        self.start_superlink()
        for site in self._sites:
            self.run("flwr", "supernode", "register", str(self.keys / "sites" / site / "auth.pub"), "trial")
        return self

    def __exit__(self, *exception: object) -> None:
        for name in reversed(list(self._processes)):
            self.stop(name)

    def start_superlink(self) -> None:
        server = self.keys / "superlink"
        self._start(
            "superlink", "flower-superlink", "--port", str(self.port), "--database", str(self.folder / "state.db"),
            "--ssl-ca-certfile", str(self.keys / "ca.crt"), "--ssl-certfile", str(server / "server.pem"),
            "--ssl-keyfile", str(server / "server.key"), "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        self._until_ready()

    def start_site(self, site: str, **config: Any) -> None:
        """Start the site's SuperNode; what it decides are keywords, with underscores for hyphens."""
        settings = {"site": site, "output": str(self.folder / site), **config}
        self._start(
            site, "flower-supernode", "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", str(self.keys / "ca.crt"), "--port", str(free_port()),
            "--auth-supernode-private-key", str(self.keys / "sites" / site / "auth.key"),
            "--node-config", as_toml(settings),
        )  # fmt: skip

    def submit(self, **config: Any) -> int:
        """Submit a run with these entries of its configuration; its number."""
        settings = {"output": str(self.folder / "coordinator"), **config}
        answer = self.run("flwr", "run", str(self.app), "trial", "--run-config", as_toml(settings), "--format", "json")
        return int(json.loads(answer[answer.index("{") :])["run-id"])

    def status(self, run_id: int) -> str:
        """Such as ``running`` or ``finished:completed``."""
        answer = self.run("flwr", "ls", "trial", "--run-id", str(run_id), "--format", "json")
        return json.loads(answer[answer.index("{") :])["runs"][0]["status"]

    def wait(self, run_id: int, timeout: float) -> str:
        """The status with which a run has finished."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self.status(run_id)
            if status.startswith("finished"):
                return status
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(f"run {run_id} is still {status} after {timeout} s:\n{self.run_log(run_id)}")

    def run_log(self, run_id: int) -> str:
        """What the coordinator's program has said so far."""
        return self.run("flwr", "log", str(run_id), "trial", "--show")

    def site_folder(self, site: str, run_id: int) -> Path:
        return self.folder / site / f"run-{run_id}"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def is_running(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the SuperLink or a site's SuperNode, and wait until it is gone."""
        process = self._processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def run(self, command: str, *arguments: str) -> str:
        """What a command of the environment prints; it must succeed."""
        answer = subprocess.run(  # noqa: S603
            [BIN / command, *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert answer.returncode == 0, f"{command} {' '.join(arguments)}:\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    def environment(self) -> dict[str, str]:
        return {
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self._home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "OMP_NUM_THREADS": "1",
        }

    def _start(self, name: str, command: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603
                [BIN / command, *arguments], env=self.environment(), stdout=log, stderr=log, cwd=self.folder
            )

    def _until_ready(self) -> None:
        encryption = ssl.create_default_context(cafile=self.keys / "ca.crt")
        deadline = time.monotonic() + _COMMAND_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"https://127.0.0.1:{self.port}/health", verify=encryption, timeout=1).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise TimeoutError(f"the SuperLink is not ready:\n{self.log('superlink')}")


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of running processes that mention a folder, by process."""
    answer = subprocess.run(["ps", "-eww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True)  # noqa: S607
    rows = [row.split(maxsplit=2) for row in answer.stdout.splitlines()]
    return {int(pid): args for pid, stat, args in rows if str(folder) in args and not stat.startswith("Z")}


def as_toml(config: dict[str, Any]) -> str:
    """What Flower's command line takes as a configuration, with hyphens for underscores."""
    return " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in config.items())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
