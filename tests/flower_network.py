"""A federation's network of real processes on loopback, set up as docs/deployment.md says.

That is a SuperLink, before it a proxy where nginx is installed, and for each site its service and its SuperNode.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from fedscgen._options import read_options
from fedscgen.deployment import SiteConfig, find_fingerprint, trust_site, write_options
from fedscgen.flower import commands

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
_COMMAND_SECONDS = 240.0
_LOOK_SECONDS = 3.0


class Network:
    """Started as a context manager, it leaves no process behind."""

    def __init__(self, folder: Path, sites: list[str], settings: str = "paper") -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.app = folder / "app"
        self.port = free_port()
        self.superlink_port = free_port() if NGINX else self.port
        self._home = folder / "flwr"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sites = sites
        self._settings = settings
        self._sockets = Path(tempfile.mkdtemp(prefix="sites"))  # short, as a socket's path is bounded

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for name in list(self._processes):
            self.stop(name)
        shutil.rmtree(self._sockets)

    def _set_up(self) -> None:
        self._home.mkdir()
        write_flower_config(self._home, self.superlink_port, self.keys / "ca.crt")
        commands.keys(self.keys, ["localhost"], self._sites, days=1, port=self.port, superlink_port=self.superlink_port)
        self.start_superlink(ready=False)  # which takes seconds
        if NGINX:
            self._start_proxy()
        commands.init(self.app, len(self._sites), self._settings)
        self._until("the SuperLink is ready", self._is_ready, "superlink")
        for site in self._sites:
            self.run("flwr", "supernode", "register", str(self.keys / "sites" / site / "auth.pub"), "trial")

    def start_superlink(self, *, ready: bool = True) -> None:
        server = self.keys / "superlink"
        self._start(
            "superlink", [BIN / "flower-superlink"], "--host", "127.0.0.1", "--port", str(self.superlink_port),
            "--database", str(self.folder / "state.db"),
            "--ssl-ca-certfile", str(self.keys / "ca.crt"), "--ssl-certfile", str(server / "server.pem"),
            "--ssl-keyfile", str(server / "server.key"), "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        if ready:
            self._until("the SuperLink is ready", self._is_ready, "superlink")

    def start_service(self, site: str, **config: Any) -> None:
        """Start the site's service; what it decides are keywords, with underscores for hyphens."""
        options = {"site": site, "output": str(self.folder / site), "socket": str(self._sockets / site), **config}
        file = self.folder / f"{site}.toml"
        file.write_text(write_options(read_options(SiteConfig, options, "a test")))
        self._start(_service(site), [BIN / "fedscgen"], "site", "serve", str(file))

    def introduce(self, site: str) -> None:
        """Have the people of all sites tell each other a site's fingerprint, which no coordinator passes on."""
        own = find_fingerprint(SiteConfig(site, data=Path("-"), output=self.folder / site))
        for other in self._sites:
            if other != site:
                trust_site(self.folder / other / "trusted_sites.toml", site, own)

    def start_relay(self, site: str) -> None:
        """Start the site's SuperNode, which hands on what comes for the service."""
        self._start(
            site, [BIN / "flower-supernode"], "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", str(self.keys / "ca.crt"), "--port", str(free_port()),
            "--auth-supernode-private-key", str(self.keys / "sites" / site / "auth.key"),
            "--node-config", as_toml({"socket": str(self._sockets / site)}),
        )  # fmt: skip

    def start_sites(self, *sites: str, **config: Any) -> None:
        """Start the services of sites, whose cells are in the network's folder, and their SuperNodes.

        Their seeds are those of a simulation that begins with the seed 0.
        """
        for site in sites:
            self.introduce(site)
        for seed, site in enumerate(sites):
            self.start_service(site, data=str(self.folder / f"{site}.h5ad"), seed=seed, **config)
        for site in sites:
            self.start_relay(site)
        for site in sites:
            self._until("it listens", (self._sockets / site).exists, _service(site))

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
        follow = [BIN / "flwr", "log", str(run_id), "trial", "--stream"]  # one process, which ends with the run
        try:
            subprocess.run(follow, env=self.environment(), capture_output=True, timeout=timeout, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"run {run_id} goes on after {timeout} s:\n{self.run_log(run_id)}") from None
        deadline = time.monotonic() + _COMMAND_SECONDS
        while not (status := self.status(run_id)).startswith("finished") and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return status

    def run_log(self, run_id: int) -> str:
        """What the coordinator's program has said so far."""
        return self.run("flwr", "log", str(run_id), "trial", "--show")

    def site_folder(self, site: str, run_id: int) -> Path:
        return self.folder / site / f"run-{run_id}"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def service_log(self, site: str) -> str:
        return self.log(_service(site))

    def is_running(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def service_process(self, site: str) -> int:
        """The process that holds a site's cells."""
        return self._processes[_service(site)].pid

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the SuperLink, the proxy or a site's SuperNode, and wait until it is gone."""
        process = self._processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_service(self, site: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the site's service, and wait until it is gone."""
        self.stop(_service(site), how)

    def run(self, command: str, *arguments: str) -> str:
        """What a command of the environment prints; it must succeed."""
        answer = self.try_to_run(command, *arguments)
        assert answer.returncode == 0, f"{command} {' '.join(arguments)}:\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    def try_to_run(self, command: str, *arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command of the environment, which may fail; with another home of Flower, as somebody else."""
        environment = self.environment() if home is None else {**self.environment(), "FLWR_HOME": str(home)}
        return subprocess.run(  # noqa: S603
            [BIN / command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        return {
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self._home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "OMP_NUM_THREADS": "1",
        }

    def _start_proxy(self) -> None:
        """The configuration as it is written, below one that lets any user run nginx."""
        temporary = self.folder / "nginx"
        temporary.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {temporary};\n" for kind in kinds)
        main = self.folder / "nginx.conf"
        main.write_text(
            f"pid {temporary / 'pid'};\nevents {{}}\nhttp {{\naccess_log {self.folder / 'access.log'};\n{places}"
            f"include {self.keys / 'superlink' / 'nginx.conf'};\n}}\n"
        )
        user = "user root; " if os.geteuid() == 0 else ""
        self._start("proxy", [NGINX], "-c", str(main), "-e", "stderr", "-g", f"{user}daemon off;")
        self._until("the proxy listens", lambda: _answers(self.port), "proxy")

    def _start(self, name: str, command: list[Any], *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603
                [*command, *arguments], env=self.environment(), stdout=log, stderr=log, cwd=self.folder
            )

    def _until(self, what: str, condition: Callable[[], bool], name: str) -> None:
        """Wait for it, and show a process' log if it doesn't come."""
        deadline = time.monotonic() + _COMMAND_SECONDS
        while not condition():
            if time.monotonic() > deadline or not self.is_running(name):
                raise TimeoutError(f"it is not so that {what}:\n{self.log(name)}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        encryption = ssl.create_default_context(cafile=self.keys / "ca.crt")
        try:
            address = f"https://127.0.0.1:{self.superlink_port}/health"
            return httpx.get(address, verify=encryption, timeout=1).is_success
        except httpx.HTTPError:
            return False


def write_flower_config(home: Path, port: int, authority: Path) -> None:
    """Tell Flower's command line where a SuperLink is."""
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "trial"\n\n[superlink.trial]\n'
        f'address = "127.0.0.1:{port}"\nroot-certificates = "{authority}"\n'
    )


def wait_for_the_end(folder: Path, seconds: float = 30.0) -> None:
    """Wait until no process mentions a folder: a SuperExec sees within seconds that what started it is gone."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "processes are left behind"


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


def _answers(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _service(site: str) -> str:
    """What a site's service is called among the processes."""
    return f"{site}-service"
