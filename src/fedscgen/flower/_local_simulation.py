"""Sites of Flower's local simulation, which have no configuration of their own: each takes its part of one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedscgen._files import create_whole
from fedscgen.flower._channel import runs_below

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SITE_KEY = "batch"
_PARTITION, _N_PARTITIONS = "partition-id", "num-partitions"


def is_simulated(node_config: Mapping[str, Any]) -> bool:
    """Whether Flower simulates this node. At a real site, the run configuration must not choose the data."""
    return set(node_config) == {_PARTITION, _N_PARTITIONS} and not runs_below("flower-supernode")


def make_simulated_site(run_config: Mapping[str, Any], node_config: Mapping[str, Any], run_id: int) -> dict[str, Any]:
    """The configuration of a site with the node's part of ``simulated-data``, split by ``obs["batch"]``.

    The site agrees to everything. Without a federation's settings, which take seconds to import, the run configuration
    is taken as it is: the coordinator has checked it.

    Raises
    ------
    ValueError
        No data are named, or the nodes aren't as many as the sites in them.
    FileNotFoundError
        There is no such file.
    KeyError
        The cells have no such column.
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
        from fedscgen._data import read_cells  # takes as long as AnnData does to load

        with create_whole(part, overwrite=False, remedy="") as target:
            read_cells(path)[(site_of_cell == site).to_numpy()].copy().write_h5ad(target)
    agreeable = {"aggregators": run_config["secure"], "reveal-counts": True}
    return {"site": site, "data": str(part), "output": str(output), **agreeable}


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
