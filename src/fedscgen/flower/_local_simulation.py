"""Sites of Flower's local simulation, which have no configuration of their own: each takes its part of one file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedscgen._files import create_whole
from fedscgen._options import read_options
from fedscgen._processes import end_with
from fedscgen.flower._channel import runs_below

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SITE_KEY = "batch"
_START_SECONDS = 120.0
_PARTITION, _N_PARTITIONS = "partition-id", "num-partitions"


def is_simulated(node_config: Mapping[str, Any]) -> bool:
    """Whether Flower simulates this node. At a real site, the run configuration must not choose the data."""
    return set(node_config) == {_PARTITION, _N_PARTITIONS} and not runs_below("flower-supernode")


def find_simulated_socket(run_config: Mapping[str, Any], node_config: Mapping[str, Any], run_id: int) -> Path:
    """Where the node's service listens, which is started if there is none.

    The service ends with the process that has started this one.

    Raises
    ------
    ValueError
        No data are named, or the nodes aren't as many as the sites in them.
    FileNotFoundError
        There is no such file.
    KeyError
        The cells have no such column.
    PermissionError
        The folder for the socket is another user's.
    TimeoutError
        The service did not start; the message names its log.
    """
    folder = Path(tempfile.gettempdir()) / f"fedscgen-{os.getuid()}-{run_id}"  # short, as a socket's path is bounded
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is another user's: remove it")
    socket = folder / f"{node_config[_PARTITION]}.sock"
    if not socket.exists():
        config = make_simulated_site(run_config, node_config, run_id, socket)
        _start(config, socket.with_suffix(".json"))
    return socket


def make_simulated_site(
    run_config: Mapping[str, Any], node_config: Mapping[str, Any], run_id: int, socket: Path
) -> dict[str, Any]:
    """The configuration of a site with the node's part of ``simulated-data``, split by ``obs["batch"]``.

    The site agrees to everything. Without a federation's settings, which take seconds to import, the run configuration
    is taken as it is: the coordinator has checked it.
    """
    if not run_config["simulated-data"]:
        raise ValueError('a local simulation needs simulated-data="/absolute/path/of/cells.h5ad" in --run-config')
    path = Path(run_config["simulated-data"])
    site_of_cell = _site_of_cell(path)
    sites, n_nodes = sorted(site_of_cell.unique()), node_config[_N_PARTITIONS]
    if len(sites) != n_nodes:
        raise ValueError(
            f"{path} holds {len(sites)} sites and {n_nodes} nodes are simulated: "
            f"set num-supernodes={len(sites)} and n-sites={len(sites)}"
        )
    site = sites[node_config[_PARTITION]]
    output = Path(run_config["output"]).absolute() / "sites" / site
    part = output / f"run-{run_id}" / "cells.h5ad"
    if not part.exists():
        from fedscgen._read_cells import read_cells  # takes as long as AnnData does to load

        with create_whole(part, overwrite=False, remedy="") as target:
            read_cells(path)[(site_of_cell == site).to_numpy()].copy().write_h5ad(target)
    agreeable = {"aggregators": run_config["secure"], "reveal-counts": True, "allow-unknown-sites": True}
    return {"site": site, "data": str(part), "output": str(output), "socket": str(socket), **agreeable}


def _start(config: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(config), encoding="utf-8")
    log = file.with_suffix(".log")
    command = [sys.executable, "-m", __name__, str(file), str(os.getppid())]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)  # noqa: S603
    deadline = time.monotonic() + _START_SECONDS
    while not Path(config["socket"]).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"the simulated site's service did not start: {log} says why")
        time.sleep(0.1)


def main(file: Path, watched: int) -> None:
    """Serve a simulated site until a process ends: what ``python -m fedscgen.flower._local_simulation`` does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    end_with(watched)
    from fedscgen.deployment import SiteConfig, serve  # takes seconds, during which it is watched already

    serve(read_options(SiteConfig, json.loads(file.read_text(encoding="utf-8")), "a simulated site"))


def _site_of_cell(path: Path) -> pd.Series[str]:
    """Read the one column, as this is done for every message."""
    import h5py
    from anndata.io import read_elem

    if not path.is_file():
        raise FileNotFoundError(f"simulated-data={path} does not exist")
    with h5py.File(path) as file:
        if SITE_KEY not in file["obs"]:
            raise KeyError(f"{path} has no obs[{SITE_KEY!r}], which names the sites")
        return read_elem(file["obs"])[SITE_KEY].astype(str)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
