"""What goes wrong between institutions, on a real network. Some minutes long, so run by hand, from the repository:

python -m pytest tests/flower/check_faults.py

The same faults without a network are in test_carrier.py, and in test_site.py and test_coordinator.py of deployment.
"""

import os
import signal
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from cells import make_adata
from fedscgen.model import read_model
from flower_network import Network, wait_for_the_end

SITES = ["north", "south", "west", "east"]
QUICK = {"n_epochs": 1, "n_sites": 3, "min_sites": 2, "reference": "mean"}


@pytest.fixture
def network(tmp_path):
    with Network(tmp_path, SITES) as network:
        adata = make_adata(n_batches=4)
        for i, site in enumerate(SITES):
            adata[adata.obs["batch"] == f"site{i}"].write_h5ad(tmp_path / f"{site}.h5ad")
        yield network
    wait_for_the_end(tmp_path)


def start(network, *sites, **config):
    network.start_sites(*sites, accelerator="cpu", **config)


def start_service(network, site):
    network.start_service(site, data=str(network.folder / f"{site}.h5ad"), accelerator="cpu")


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it has not come to this"
        time.sleep(0.2)
    return found


def messages(network, kind, round_=None):
    """The coordinator's ledger of such messages so far."""
    path = network.folder / "coordinator" / "ledger-training.csv"
    if not path.exists():
        return pd.DataFrame()
    ledger = pd.read_csv(path)
    return ledger[(ledger["kind"] == kind) & (True if round_ is None else ledger["round"] == round_)]


def rounds_of(network, site):
    """Rounds in which a site's weights were in the sum."""
    sent = messages(network, "masked model weights")
    return set() if sent.empty else set(sent[sent["sender"] == site]["round"])


def reached_round(network, round_):
    return len(messages(network, "mask public keys", round_)) > 0


def back(network, site):
    """Start a SuperNode as systemd does, again and again: the SuperLink doesn't let it in while it seems there."""
    network.start_relay(site)
    time.sleep(10)
    return network.is_running(site)


def check_results(network, site, run_id):
    folder = network.site_folder(site, run_id)
    corrected = anndata.read_h5ad(folder / "corrected.h5ad")
    assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_sites_that_refuse_die_come_back_and_are_late(network):
    """East refuses, south is killed in round 1 and started again, then west stands still for longer than allowed."""
    start(network, "north", "south", "west")
    start(network, "east", min_sites=4)
    run_id = network.submit(n_rounds=8, answer_timeout=25, **QUICK)
    until(lambda: len(messages(network, "model weights", 1)) > 0)
    network.stop("south", signal.SIGKILL)
    network.stop_service("south", signal.SIGKILL)
    start_service(network, "south")
    until(lambda: back(network, "south"))
    until(lambda: rounds_of(network, "south"))
    late = network.service_process("west")
    os.kill(late, signal.SIGSTOP)
    until(lambda: "west is left out: no answer in time" in network.run_log(run_id))
    os.kill(late, signal.SIGCONT)
    assert network.wait(run_id, 300) == "finished:completed"
    for site in ("north", "south", "west"):
        check_results(network, site, run_id)
    log = network.run_log(run_id)
    assert "sums over 4 or more sites only" in log
    assert "south is left out" in log
    assert rounds_of(network, "north") == set(range(1, 9))
    assert 1 not in rounds_of(network, "south")
    assert 8 in rounds_of(network, "south")
    assert 8 in rounds_of(network, "west")
    assert not rounds_of(network, "east")
    assert "takes part again after its process was restarted" in network.service_log("south")


def test_a_coordinator_that_is_killed_goes_on_after_the_last_finished_round(network):
    start(network, "north", "south", "west")
    network.submit(n_rounds=3, **QUICK)
    until(lambda: reached_round(network, 2))
    network.stop("superlink", signal.SIGKILL)
    assert not (network.folder / "coordinator" / "model").exists()
    network.start_superlink()
    run_id = network.submit(n_rounds=3, **QUICK)
    assert network.wait(run_id, 240) == "finished:completed"
    assert "goes on after round 1" in network.run_log(run_id)
    assert rounds_of(network, "north") == {1, 2, 3}
    assert len(pd.read_csv(network.folder / "coordinator" / "history.csv")) == 3
    assert not (network.folder / "coordinator" / "run").exists()
    for site in ("north", "south", "west"):
        check_results(network, site, run_id)


def test_sites_without_a_common_gene_end_the_run_and_say_so(network):
    for i, site in enumerate(SITES[:3]):
        adata = anndata.read_h5ad(network.folder / f"{site}.h5ad")
        adata.var_names = [f"{name}-{i}" for name in adata.var_names]
        adata.write_h5ad(network.folder / f"{site}.h5ad")
    start(network, "north", "south", "west")
    run_id = network.submit(**QUICK)
    assert network.wait(run_id, 120).startswith("finished:failed")
    assert "the sites share no gene" in network.run_log(run_id)
    assert not (network.folder / "coordinator" / "model").exists()


def test_too_few_sites_end_the_run_in_time_and_say_why(network):
    start(network, "north", "south", aggregators="plain", reveal_counts=True)
    run_id = network.submit(join_timeout=20, **QUICK)
    assert network.wait(run_id, 120).startswith("finished:failed")
    log = network.run_log(run_id)
    assert "0 of 3 sites have joined within 20 s (none), and min-sites=2" in log
    assert "wants to sum with 'masked', but the site allows only 'plain'" in log


def test_a_newcomer_is_served_with_the_trained_model(network):
    start(network, "north", "south", "west")
    assert network.wait(network.submit(n_rounds=1, **QUICK), 240) == "finished:completed"
    start(network, "east")
    model = network.folder / "coordinator" / "model"
    run_id = network.submit(workflow="correction", trained_model=str(model), sites="east", n_sites=1, min_sites=1)
    assert network.wait(run_id, 120) == "finished:completed"
    check_results(network, "east", run_id)
    saved = read_model(network.site_folder("east", run_id) / "model")
    np.testing.assert_array_equal(saved.references.means, read_model(model).references.means)
    ledger = pd.read_csv(network.site_folder("east", run_id) / "ledger.csv")
    assert set(ledger.query("sender == 'east'")["shape"]) == {"names and settings"}
    assert not (network.site_folder("north", run_id) / "corrected.h5ad").exists()
