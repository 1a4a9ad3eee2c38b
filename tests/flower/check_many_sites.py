"""Twenty sites on one computer, and what a site costs beside the simulator. A quarter of an hour, so run by hand:

python -m pytest -s tests/flower/check_many_sites.py
"""

import os
import re
import sqlite3
import time
from collections import Counter
from pathlib import Path

import anndata
import pandas as pd
import pytest
import scvi
import torch

from cells import REAL_CELLS, make_adata
from fedscgen.federation import FederationSettings, simulate
from flower_network import Network, processes_of

KINDS = ("flower-supernode", "flower-superexec", "flwr-clientapp", "fedscgen site serve")


def finished_rounds(network):
    """When each round was finished, in seconds, from the coordinator's log."""
    with sqlite3.connect(network.folder / "state.db") as state:
        rows = state.execute("select timestamp, log from task_logs").fetchall()
    return [when for when, text in rows for _ in re.findall(r"round \d+ is finished", text)]


def memory_of_sites(folder):
    """Megabytes of a site's processes, each page shared by several counted in parts, by kind of process."""
    total = Counter()
    for process, command in processes_of(folder).items():
        kind = next((kind for kind in KINDS if kind in command), None)
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        if kind is not None:
            total[kind] += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) / 1024
    return total


def test_twenty_sites_on_one_computer(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "1")  # twenty that ask more often keep a core busy
    sites = [f"site{i:02}" for i in range(20)]
    adata = make_adata(n_cells=1000, n_batches=20)
    with Network(tmp_path, sites) as network:
        os.nice(10)  # for the sites, which start all at once and would starve the SuperLink of the same computer
        for i, site in enumerate(sites):
            adata[adata.obs["batch"] == f"site{i}"].write_h5ad(tmp_path / f"{site}.h5ad")
        network.start_sites(*sites, accelerator="cpu")
        began = time.monotonic()
        run_id = network.submit(n_rounds=1, n_epochs=1, n_sites=20, min_sites=11, reference="mean")
        most = Counter()
        while not network.status(run_id).startswith("finished"):
            assert time.monotonic() - began < 1200, network.run_log(run_id)
            most = max(most, memory_of_sites(tmp_path), key=Counter.total)
            time.sleep(15)
        seconds = time.monotonic() - began
        assert network.status(run_id) == "finished:completed", network.run_log(run_id)
        for site in sites:
            assert (network.site_folder(site, run_id) / "corrected.h5ad").exists()
    shares = ", ".join(f"{kind} {size / 20:.0f}" for kind, size in most.items())
    with capsys.disabled():
        print(f"\n20 sites: {seconds:.0f} s; at most {most.total() / 20:.0f} MB a site ({shares})")  # noqa: T201


@pytest.mark.filterwarnings("ignore:.*stay where they are:UserWarning")
def test_what_a_round_costs_beside_the_simulator(tmp_path, capsys):
    if not REAL_CELLS.exists():
        pytest.skip(f"the real cells are not here: {REAL_CELLS}")
    pbmc, settings = (
        anndata.read_h5ad(REAL_CELLS),
        FederationSettings.from_preset("paper", n_rounds=4, reference="mean"),
    )
    sites = list(pbmc.obs["batch"].cat.categories)
    with Network(tmp_path, sites) as network:
        for site in sites:
            pbmc[pbmc.obs["batch"] == site].write_h5ad(tmp_path / f"{site}.h5ad")
        network.start_sites(*sites, accelerator="cpu")
        run_id = network.submit(n_rounds=settings.n_rounds, reference="mean")
        assert network.wait(run_id, 400) == "finished:completed", network.run_log(run_id)
        over_flower = pd.Series(finished_rounds(network)).diff().median()
        ledger = pd.concat(pd.read_csv(network.site_folder(site, run_id) / "ledger.csv") for site in sites)
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    rounds = []
    result = simulate(
        pbmc, settings=settings, secure="masked", show_progress=False, on_round=lambda *_: rounds.append(time.time())
    )
    in_process = pd.Series(rounds).diff().median()
    sent = {
        name: frame.query("sender != 'server'").groupby("sender")["bytes"].sum()
        for name, frame in (("Flower", ledger), ("simulator", result.ledger))
    }
    with capsys.disabled():
        print(f"\na round: {over_flower:.1f} s over Flower, {in_process:.1f} s in the simulator")  # noqa: T201
        print(pd.DataFrame(sent))  # noqa: T201


def test_a_run_with_default_settings(tmp_path, capsys):
    if not REAL_CELLS.exists():
        pytest.skip(f"the real cells are not here: {REAL_CELLS}")
    pbmc = anndata.read_h5ad(REAL_CELLS)
    sites = list(pbmc.obs["batch"].cat.categories)
    with Network(tmp_path, sites, "default") as network:
        for site in sites:
            pbmc[pbmc.obs["batch"] == site].write_h5ad(tmp_path / f"{site}.h5ad")
        network.start_sites(*sites, accelerator="cpu")
        began = time.monotonic()
        run_id = network.submit()
        assert network.wait(run_id, 1200) == "finished:completed", network.run_log(run_id)
        seconds = time.monotonic() - began
        ledger = pd.read_csv(network.site_folder(sites[0], run_id) / "ledger.csv")
    n_exchanges = int((ledger["sender"] == sites[0]).sum())
    with capsys.disabled():
        print(f"\ndefault run: {n_exchanges} exchanges, {seconds:.0f} s")  # noqa: T201
