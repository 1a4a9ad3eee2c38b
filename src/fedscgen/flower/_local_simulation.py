"""Sites of Flower's local simulation, which have no configuration of their own: each takes its part of one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedscgen._files import read_cells, replacing
from fedscgen.flower._channel import runs_below
from fedscgen.flower._config import SiteConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from fedscgen.flower._config import RunConfig

SITE_KEY = "batch"
_PARTITION, _N_PARTITIONS = "partition-id", "num-partitions"


def is_simulated(node_config: Mapping[str, Any]) -> bool:
    """Whether Flower simulates this node. At a real site, the run configuration must not choose the data."""
    return set(node_config) == {_PARTITION, _N_PARTITIONS} and not runs_below("flower-supernode")


def simulated_site(config: RunConfig, node_config: Mapping[str, Any], run_id: int) -> SiteConfig:
    """The site with the node's part of ``simulated-data``, split by ``obs["batch"]``; it agrees to everything.

    Raises
    ------
    ValueError
        No data are named, or the nodes aren't as many as the sites in them.
    FileNotFoundError
        There is no such file.
    KeyError
        The cells have no such column.
    """
    if not config.simulated_data:
        raise ValueError('a local simulation needs simulated-data="/absolute/path/of/cells.h5ad" in --run-config')
    path = Path(config.simulated_data)
    site_of_cell = _site_of_cell(path)
    sites, n_nodes = sorted(site_of_cell.unique()), node_config[_N_PARTITIONS]
    if len(sites) != n_nodes:
        raise ValueError(
            f"{path} holds {len(sites)} sites and {n_nodes} nodes are simulated: "
            f"set num-supernodes={len(sites)} and n-sites={len(sites)}"
        )
    site = sites[node_config[_PARTITION]]
    output = Path(config.output).absolute() / "sites" / site
    part = output / f"run-{run_id}" / "cells.h5ad"
    if not part.exists():
        with replacing(part, overwrite=False, remedy="") as target:
            read_cells(path)[(site_of_cell == site).to_numpy()].copy().write_h5ad(target)
    return SiteConfig(site, str(part), str(output), aggregators="masked,plain", reveal_counts=True)


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
