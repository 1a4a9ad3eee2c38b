"""Flower's own simulation of the sites, as the app's README runs it. It leaves a SuperLink, which is stopped here.

python -m pytest tests/flower/check_local_simulation.py
"""

import os
import signal
import time

import anndata

from cells import make_adata
from flower_network import Network, as_toml, processes_of


def test_a_local_simulation_splits_one_file_into_sites(tmp_path):
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    network = Network(tmp_path, [])
    data, output = str(tmp_path / "cells.h5ad"), str(tmp_path / "result")
    settings = {"simulated_data": data, "output": output, "n_rounds": 1, "n_epochs": 1, "reference": "landmarks"}
    network.run("fedscgen", "flower", "init", str(network.app), "--settings", "paper")
    try:
        nodes = ("--federation-config", "num-supernodes=3")
        network.run("flwr", "run", str(network.app), "local", "--stream", *nodes, "--run-config", as_toml(settings))
        for site in ("site0", "site1", "site2"):
            (corrected,) = (tmp_path / "result" / "sites" / site).glob("run-*/corrected.h5ad")
            assert set(anndata.read_h5ad(corrected).obs["batch"]) == {site}
        assert (tmp_path / "result" / "model" / "weights.npz").exists()
    finally:
        for process in processes_of(tmp_path):
            os.kill(process, signal.SIGTERM)
        time.sleep(5)
    assert not processes_of(tmp_path)
