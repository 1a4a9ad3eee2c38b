"""The whole of it on loopback: a SuperLink behind its proxy, and three sites, each with its service and its SuperNode.

A message takes some six seconds over Flower, whatever its size: a SuperNode looks for one every three seconds, which is
fixed, and starts a process for it, which imports Flower for two to three. So this asks for few.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import stat

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from cells import REAL_CELLS
from fedscgen.federation import FederationSettings, simulate
from fedscgen.flower._trial_keys import write_trial_keys
from fedscgen.model import read_model
from flower_network import NGINX, Network, wait_for_the_end, write_flower_config

# landmarks take eight sums, and over Flower half a minute each; many rounds are in deployment/test_coordinator.py
QUICK = {"n_rounds": 1, "n_epochs": 1, "reference": "mean"}
N_HIDDEN = 200  # with which a masked message is as long as two pieces of Flower's
pytestmark = pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
behind_a_proxy = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")


@pytest.fixture(scope="module")
def assays():
    if not REAL_CELLS.exists():
        pytest.skip(f"needs real cells at {REAL_CELLS}")
    pbmc = anndata.read_h5ad(REAL_CELLS)
    return {str(assay): pbmc[pbmc.obs["batch"] == assay].copy() for assay in pbmc.obs["batch"].cat.categories}


@pytest.fixture(scope="module")
def network(assays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    with Network(folder, list(assays)) as network:
        for site, cells in assays.items():
            cells.write_h5ad(folder / f"{site}.h5ad")
        network.start_sites(*assays, accelerator="cpu")
        yield network
    wait_for_the_end(folder)


@pytest.fixture(scope="module")
def run_id(network):
    run_id = network.submit(**QUICK, **{"model.n_hidden": N_HIDDEN})
    status = network.wait(run_id, timeout=400)
    assert status == "finished:completed", network.run_log(run_id)
    return run_id


@pytest.fixture(scope="module")
def simulated(assays):
    scvi.settings.seed = 0
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = FederationSettings.from_preset("paper", **QUICK, model={"n_hidden": N_HIDDEN})
    yield simulate(assays, settings=settings, secure="masked", show_progress=False)
    torch.set_num_threads(n_threads)
    scvi.settings.seed = None


def test_the_global_model_is_that_of_the_simulator(network, run_id, simulated):
    saved = read_model(network.folder / "coordinator" / "model")
    assert saved.genes == simulated.genes
    assert saved.references.labels == simulated.references.labels
    weights = simulated.model.get_weights()
    for name, array in saved.weights.items():
        np.testing.assert_allclose(array, weights[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(saved.references.means, simulated.references.means, atol=1e-4)


def test_every_site_writes_its_own_results(network, run_id, assays, simulated):
    for site, cells in assays.items():
        folder = network.site_folder(site, run_id)
        corrected = anndata.read_h5ad(folder / "corrected.h5ad")
        assert list(corrected.obs_names) == list(cells.obs_names)
        rows = simulated.corrected.obs["batch"] == site
        np.testing.assert_allclose(
            corrected.obsm["X_fedscgen"], simulated.corrected[rows].obsm["X_fedscgen"], atol=1e-3
        )
        assert read_model(folder / "model").genes == simulated.genes
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_ledgers_of_both_ends_agree(network, run_id, assays):
    coordinator = pd.read_csv(network.folder / "coordinator" / "ledger-training.csv").drop(
        columns=["settings", "chain"]
    )
    for site in assays:
        own = pd.read_csv(network.site_folder(site, run_id) / "ledger.csv").drop(columns=["settings", "chain"])
        sent = own[own["sender"] == site]
        arrived = coordinator[coordinator["sender"] == site]
        pd.testing.assert_frame_equal(sent.reset_index(drop=True), arrived.reset_index(drop=True))
        assert set(sent["protection"]) <= {"none", "public", "encrypted", "masked", "shares"}
        assert set(sent.loc[sent["protection"] == "none", "shape"]) <= {"names and settings"}


def test_what_a_site_writes_is_for_its_own_user(network, run_id, assays):
    for site in assays:
        for path in [network.folder / site, *(network.folder / site).rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_sites_check_before_they_train(network, assays):
    output = network.folder / "check"
    checked = network.submit(workflow="check", output=str(output), reference="mean")
    assert network.wait(checked, timeout=200) == "finished:completed", network.run_log(checked)
    text = (output / "check.txt").read_text()
    assert not re.findall("^obstacle: .*", text, re.MULTILINE)
    for site in assays:
        assert f"{site} tells its " in text
        ledger = pd.read_csv(network.site_folder(site, checked) / "ledger.csv")
        assert list(ledger["kind"].unique()) == ["introduction", "what a site has", "names in use"]
    assert (output / "check.html").exists()


@pytest.fixture
def outsider(network, tmp_path):
    """Runs Flower's command as somebody who has ca.crt and reaches the port that the sites reach."""
    shutil.copy(network.keys / "ca.crt", tmp_path)
    write_flower_config(tmp_path, network.port, tmp_path / "ca.crt")

    def run(*arguments):
        answer = network.try_to_run("flwr", *arguments, home=tmp_path)
        return answer.returncode, answer.stdout + answer.stderr

    return run


@behind_a_proxy
def test_an_outsider_can_start_nothing_and_let_nobody_in(network, run_id, outsider):
    own = network.keys / "sites" / "outsider"
    write_trial_keys(own, ["localhost"], ["outsider"])
    key = own / "sites" / "outsider" / "auth.pub"
    asked = [("run", str(network.app), "trial"), ("supernode", "register", str(key), "trial")]
    asked += [("ls", "trial"), ("stop", str(run_id), "trial"), ("log", str(run_id), "trial", "--show")]
    for arguments in asked:
        returned, said = outsider(*arguments)
        assert returned != 0, said
    denied = (network.folder / "access.log").read_text()
    for path in ("start-run", "register-node", "list-runs", "stop-run", "stream-logs"):
        assert re.search(rf'"POST /v1/control/{path} HTTP/1.1" 403', denied), denied[-2000:]
    assert network.status(run_id) == "finished:completed"


@behind_a_proxy
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/v1/control/start-run",
        "/v1/runtime/push-messages",
        "/v1/fleet/register-node",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/pull-messages%2f..%2f..%2fcontrol%2fstart-run",
        "//v1/control/start-run",
        "/v1/control/start-run?/v1/fleet/pull-messages",
        "/v1/control/start-run%00/v1/fleet/pull-messages",
    ],
)
def test_no_spelling_of_a_path_passes_the_proxy(network, path):
    """Sent as it is, which a library for HTTP would not do."""
    context = ssl.create_default_context(cafile=network.keys / "ca.crt")
    plain = socket.create_connection(("127.0.0.1", network.port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        assert re.match(rb"HTTP/1.1 40[03] ", connection.recv(4096))
