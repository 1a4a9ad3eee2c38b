"""What goes wrong among clients, in processes of the real engine. A minute or two long, so run by hand:

python -m pytest tests/featurecloud/check_faults.py

The same faults of the messages alone are in test_transport.py, and of configurations in test_config.py.
"""

import anndata
import numpy as np
import pytest
import yaml

from cells import make_adata
from fedscgen.federation import check_ledger

CLIENTS = ["north", "south", "west"]
BASE = {
    "data": {"adata": "raw.h5ad"},
    "n_rounds": 1,
    "model": {"hidden_layer_sizes": "16", "z_dimension": 4},
    "train": {"n_epochs": 1},
    "federation": {"answer_timeout": 6, "join_timeout": 12, "reference": "mean"},
    "site": {"accelerator": "cpu", "idle_timeout": 15},
}


@pytest.fixture
def clients(make_clients):
    clients = make_clients(*CLIENTS)
    adata = make_adata(300)
    for i, client in enumerate(CLIENTS):
        adata[adata.obs["batch"] == f"site{i}"].write_h5ad(clients.given(client) / "raw.h5ad")
        configure(clients, client)
    return clients


def configure(clients, client, **sections):
    content = {name: {**BASE.get(name, {}), **value} for name, value in sections.items()}
    clients.given(client).joinpath("config.yml").write_text(yaml.safe_dump({"fedscgen": {**BASE, **content}}))


def check_nothing_half_written(clients, *names, killed=()):
    for client in names:
        output = clients.output(client)
        found = [str(path) for path in output.rglob("*")]
        assert not (output / "corrected.h5ad").exists(), found
        assert not (output / "trained_model").exists()
        hidden = [path.name for path in output.rglob(".*") if path.name != ".lock"]
        assert not [name for name in hidden if client not in killed or not name.endswith(".message")], found
        ledger = output / "fedscgen" / "ledger.csv"
        assert not ledger.exists() or not check_ledger(ledger).fault


def kill_at(clients, controller, victim, memo):
    """Kill a client as soon as it is sent, or sends, such a message."""

    def disturb(message):
        if message.memo == memo and victim in (message.sender, *message.receivers):
            clients.kill(victim)
        return (0.0,)

    controller.disturb = disturb


# introduction, plan, settings, key, then four messages for each sum: the first stages of one, training, references
@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 6, 7, 8, 33, 34, 35, 36, 37, 41])
def test_a_client_that_is_killed_ends_the_run_with_a_message_at_all_others(clients, stage):
    controller = clients.start()
    kill_at(clients, controller, "south", f"q_{stage}")
    controller.run(timeout=90)
    check_nothing_half_written(clients, *CLIENTS, killed=["south"])
    for client in ("north", "west"):
        assert controller.said[client]["state"] == "error"
        assert controller.said[client]["message"] not in ("RuntimeError", "RunError")
    assert "south" in clients.log("north")
    assert "no answer in time" in clients.log("north")
    assert "the coordinator has ended the run" in clients.log("west")
    assert "south" in clients.log("west")


def test_the_others_go_on_without_a_client_that_is_killed_in_training_if_that_was_agreed(clients):
    for client in CLIENTS:
        configure(clients, client, federation={"min_sites": 2}, site={"min_sites": 2})
    controller = clients.start()
    kill_at(clients, controller, "south", "q_33")
    controller.run(timeout=90)
    for client in ("north", "west"):
        assert controller.said[client]["state"] == "running", clients.log(client)
        corrected = anndata.read_h5ad(clients.output(client) / "corrected.h5ad")
        assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    check_nothing_half_written(clients, "south", killed=["south"])


def test_a_coordinator_that_is_killed_ends_the_run_of_all_others_in_time(clients):
    controller = clients.start()
    kill_at(clients, controller, "north", "a_6")
    controller.run(timeout=60)
    check_nothing_half_written(clients, *CLIENTS, killed=["north"])
    for client in ("south", "west"):
        assert "nothing was heard of the coordinator" in controller.said[client]["message"]
        assert "nothing was heard of the coordinator for 15 s" in clients.log(client)


def lose(clients, memo):
    controller = clients.start()
    controller.disturb = lambda message: () if message.memo == memo else (0.0,)
    controller.run(timeout=90)
    return controller


@pytest.mark.parametrize("memo", ["q_5", "a_5"])
def test_a_message_that_is_lost_before_anything_is_masked_is_asked_for_again(clients, memo):
    controller = lose(clients, memo)
    for client in CLIENTS:
        assert controller.said[client]["finished"], clients.log(client)
        assert (clients.output(client) / "corrected.h5ad").exists()
    assert "asks the same sites once more" in clients.log("north")


@pytest.mark.parametrize("memo", ["q_35", "a_35"])
def test_a_message_that_is_lost_in_training_ends_the_run_in_time_and_all_know(clients, memo):
    controller = lose(clients, memo)
    check_nothing_half_written(clients, *CLIENTS)
    for client in CLIENTS:
        assert controller.said[client]["state"] == "error", clients.log(client)


def test_an_end_that_is_lost_leaves_all_results(clients):
    lose(clients, "end")
    assert "nothing was heard of the coordinator for 15 s" in clients.log("south")
    assert all((clients.output(client) / "corrected.h5ad").exists() for client in CLIENTS)


@pytest.mark.parametrize("client", CLIENTS[:2])
def test_a_bad_configuration_ends_the_run_at_all_clients_and_names_itself_at_its_own(clients, client):
    configure(clients, client, train={"lr": "fast"})
    controller = clients.start()
    controller.run(timeout=60)
    check_nothing_half_written(clients, *CLIENTS)
    assert all(controller.said[name]["state"] == "error" for name in CLIENTS)
    assert "lr='fast': expected a number" in clients.log(client)
    if client != "north":
        assert "client 'south' can't use its configuration" in clients.log("west")
