"""The whole of it on loopback: three processes of the engine, and a controller between them."""

from __future__ import annotations

import hashlib

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
import yaml

from cells import REAL_CELLS
from featurecloud_network import Clients
from fedscgen.featurecloud._frame import read_frame
from fedscgen.federation import FederationSettings, check_ledger, read_ledger, simulate
from fedscgen.model import FedSCGEN, read_model

pytestmark = pytest.mark.filterwarnings("ignore:.*holds one label only")  # as the last site's

CLIENTS = ["a1", "b2", "c3"]
N_HIDDEN, N_LATENT = 32, 6
TRAIN = {
    "workflow": "train",
    "data": {"adata": "raw.h5ad", "batch_key": "batch", "cell_key": "cell_type"},
    "smpc": True,
    "n_rounds": 2,
    "model": {
        "init_model": "None",
        "ref_model": "model.pth",
        "hidden_layer_sizes": f"{N_HIDDEN},{N_HIDDEN}",
        "z_dimension": N_LATENT,
    },
    "train": {"lr": 0.001, "n_epochs": 1, "batch_size": 50},
}
CORRECTION = {**TRAIN, "workflow": "correction", "model": {**TRAIN["model"], "init_model": "trained_model"}}


def write_config(clients, client, content, **site):
    own = {**content, "site": {"accelerator": "cpu", **site}}
    clients.given(client).joinpath("config.yaml").write_text(yaml.safe_dump({"fedscgen": own, "another_app": {"a": 1}}))


@pytest.fixture(scope="module")
def assays():
    """Cells of three sites, and of one that comes later. The last site has few cells, all of one type."""
    if not REAL_CELLS.exists():
        pytest.skip(f"needs real cells at {REAL_CELLS}")
    pbmc = anndata.read_h5ad(REAL_CELLS)
    parts = [pbmc[pbmc.obs["batch"] == assay].copy() for assay in pbmc.obs["batch"].cat.categories]
    commonest = parts[2].obs["cell_type"].value_counts().index[0]
    small = parts[2][parts[2].obs["cell_type"] == commonest][:40].copy()
    later = parts[1][::2].copy()
    return dict(zip(CLIENTS, [parts[0], parts[1][1::2].copy(), small], strict=True)), later


@pytest.fixture(scope="module")
def trained(assays, starter, tmp_path_factory):
    with Clients(starter, tmp_path_factory.mktemp("train"), CLIENTS) as clients:
        for seed, (client, cells) in enumerate(assays[0].items()):
            cells.write_h5ad(clients.given(client) / "raw.h5ad")
            write_config(clients, client, TRAIN, seed=seed)
        controller = clients.start()
        controller.run(timeout=150)
        yield clients, controller


@pytest.fixture(scope="module")
def simulated(assays):
    scvi.settings.seed = 0
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = {"n_hidden": N_HIDDEN, "n_layers": 2, "n_latent": N_LATENT}
    settings = FederationSettings(n_rounds=2, n_epochs=1, lr=0.001, batch_size=50, model=network, seed=0)
    yield simulate(assays[0], settings=settings, secure="masked", show_progress=False, accelerator="cpu")
    torch.set_num_threads(n_threads)
    scvi.settings.seed = None


def models_of(clients):
    return {client: read_model(clients.output(client) / "trained_model") for client in CLIENTS}


def test_all_clients_finish_and_say_how_they_go_on(trained):
    clients, controller = trained
    for client in CLIENTS:
        assert controller.said[client]["finished"], clients.log(client)
        assert controller.said[client]["state"] == "running"
        assert controller.said[client]["progress"] == 1.0
        texts = controller.texts[client]
        for text in ("trains, round 1 of 2", "finds where cells belong"):
            assert text in texts
        assert all(len(text) <= 40 for text in texts)


def test_the_global_model_is_that_of_the_simulator(trained, simulated):
    weights, landmarks = simulated.model.get_weights(), simulated.references
    for saved in models_of(trained[0]).values():
        assert saved.genes == simulated.genes
        for name, array in saved.weights.items():
            np.testing.assert_allclose(array, weights[name], atol=1e-5, err_msg=name)
        assert saved.references.labels == landmarks.labels
        np.testing.assert_allclose(saved.references.positions, landmarks.positions, atol=1e-3)


def test_the_coordinator_takes_the_global_weights_as_all_do(trained):
    """In the published app it begins every round with the initial ones, and corrects with its own."""
    clients, _ = trained
    models = models_of(clients)
    first = models[CLIENTS[0]]
    federated = read_model(clients.output(CLIENTS[0]) / "fedscgen" / "coordinator" / "model")
    for saved in (*models.values(), federated):
        for name, array in saved.weights.items():
            np.testing.assert_array_equal(array, first.weights[name], err_msg=name)  # BatchNorm's among them


def test_a_site_that_dominates_no_type_has_its_result(trained, assays):
    """In the published app it waits without end, and all others with it."""
    clients, _ = trained
    counts = pd.DataFrame({client: cells.obs["cell_type"].value_counts() for client, cells in assays[0].items()})
    assert (counts.idxmax(axis=1) != CLIENTS[2]).all()
    assert anndata.read_h5ad(clients.output(CLIENTS[2]) / "corrected.h5ad").n_obs == 40


def test_the_published_outputs_are_beside_ours(trained, assays, simulated):
    clients, _ = trained
    for client, cells in assays[0].items():
        output = clients.output(client)
        published = {"corrected.h5ad", "trained_model", "GLMs.csv", "config.yaml", "raw.h5ad"}
        assert {path.name for path in output.iterdir()} == {*published, "fedscgen"}
        ours = {"ledger.csv", "settings.json", "history.csv", "checklist.md", "report.html"}
        coordinator = {"coordinator"} if client == CLIENTS[0] else set()
        assert {path.name for path in (output / "fedscgen").iterdir()} == ours | coordinator
        corrected = anndata.read_h5ad(output / "corrected.h5ad")
        assert list(corrected.obs_names) == list(cells.obs_names)
        np.testing.assert_array_equal(corrected.layers["original_data"].toarray(), cells.X.toarray())
        assert abs(corrected.X - cells.X).max() > 0.01
        np.testing.assert_array_equal(corrected.obsm["latent_corrected"], corrected.obsm["X_fedscgen"])
        rows = [name for name in simulated.corrected.obs_names if name in set(cells.obs_names)]
        np.testing.assert_allclose(
            corrected[rows].obsm["X_fedscgen"], simulated.corrected[rows].obsm["X_fedscgen"], atol=1e-2
        )
        means = pd.read_csv(output / "GLMs.csv", index_col=0)
        assert list(means.columns) == [str(i + 1) for i in range(N_LATENT)]
        assert set(means.index) <= set(simulated.references.labels)
        page = (output / "fedscgen" / "report.html").read_text()
        assert f"1 site, {cells.n_obs} cells: before and after correction" in page
        assert "masked" in page
        assert (output / "config.yaml").read_bytes() == (clients.given(client) / "config.yaml").read_bytes()
        assert (output / "raw.h5ad").read_bytes() == (clients.given(client) / "raw.h5ad").read_bytes()


def check_relayed(clients, controller, workflow):
    """Nothing was relayed but bytes that a ledger lists, and no number of a site that isn't masked."""
    ledgers = {client: read_ledger(clients.output(client) / "fedscgen" / "ledger.csv") for client in controller.links}
    coordinator = next(iter(controller.links))
    path = clients.output(coordinator) / "fedscgen" / "coordinator" / f"ledger-{workflow}.csv"
    listed = set(read_ledger(path)["sha256"])
    for message in controller.relayed:
        digest = hashlib.sha256(read_frame(message.data)).hexdigest()
        assert digest in listed
        for client in {message.sender, *message.receivers} - {coordinator}:
            assert digest in set(ledgers[client]["sha256"])
    for client, ledger in ledgers.items():
        sent = ledger[(ledger["sender"] != "server") & ~ledger["shape"].isin(["names and settings"])]
        assert set(sent["protection"]) <= {"public", "encrypted", "masked", "shares"}
        assert not check_ledger(clients.output(client) / "fedscgen" / "ledger.csv").fault


def test_what_was_relayed_is_in_the_ledgers_and_masked(trained):
    check_relayed(*trained, "training")


@pytest.fixture(scope="module")
def checked(assays, starter, tmp_path_factory):
    """A check of the same clients, of which one spells a type otherwise and one has no labels."""
    with Clients(starter, tmp_path_factory.mktemp("check"), CLIENTS) as clients:
        for client, cells in assays[0].items():
            own = cells.copy()
            if client == "b2":
                own.obs["cell_type"] = own.obs["cell_type"].astype(str).str.lower() + " cells"
            if client == "c3":
                del own.obs["cell_type"]
            own.write_h5ad(clients.given(client) / "raw.h5ad")
            write_config(clients, client, {**TRAIN, "workflow": "check"})
        controller = clients.start()
        controller.run(timeout=60)
        yield clients, controller


def test_each_client_of_a_check_gets_a_page(checked):
    clients, controller = checked
    renamed = []
    for client in CLIENTS:
        assert controller.said[client]["finished"], clients.log(client)
        names = {path.name for path in clients.output(client).iterdir()}
        assert names - {"labels.toml"} == {"check.html", "config.yaml", "raw.h5ad", "fedscgen"}
        page = (clients.output(client) / "check.html").read_text()
        assert f"Before {client} trains with others" in page
        assert ("labels.toml" in names) == ("looks like" in page)
        renamed += ["labels.toml" in names]
    assert any(renamed[:2]), "of two spellings, one of the sites changes its own"
    assert not renamed[2], "it has no labels"
    of_all = clients.output("a1") / "fedscgen" / "coordinator"
    assert {path.name for path in of_all.iterdir()} >= {"check.html", "check.txt", "labels.toml", "ledger-check.csv"}
    assert "note: c3: no cell has a label" in (of_all / "check.txt").read_text()


def test_a_check_relays_nothing_but_names_and_settings(checked):
    clients, controller = checked
    check_relayed(clients, controller, "check")
    for client in CLIENTS:
        ledger = read_ledger(clients.output(client) / "fedscgen" / "ledger.csv")
        assert set(ledger["shape"]) == {"names and settings"}
        assert {"what a site has", "names in use"} <= set(ledger["kind"])


@pytest.fixture(scope="module")
def later(trained, assays, starter, tmp_path_factory):
    """A newcomer's correction; its coordinator has the trained folder, the newcomer a copy."""
    names = ["a1", "newcomer"]
    with Clients(starter, tmp_path_factory.mktemp("correction"), names) as clients:
        for client, cells in zip(names, [assays[0]["a1"], assays[1]], strict=True):
            cells.write_h5ad(clients.given(client) / "raw.h5ad")
            folder = trained[0].output("a1") / "trained_model"
            (clients.given(client) / "trained_model").symlink_to(folder)
            write_config(clients, client, CORRECTION)
        controller = clients.start()
        controller.run(timeout=100)
        yield clients, controller


def test_a_newcomer_is_corrected_by_the_trained_model_and_nothing_else(later, trained, assays):
    """In the published app by a random one, without a word, as the folder isn't found, and in training mode."""
    clients, controller = later
    assert controller.said["newcomer"]["finished"], clients.log("newcomer")
    given = read_model(trained[0].output("a1") / "trained_model")
    used = read_model(clients.output("newcomer") / "trained_model")
    for name, array in given.weights.items():
        np.testing.assert_array_equal(used.weights[name], array, err_msg=name)
    corrected = anndata.read_h5ad(clients.output("newcomer") / "corrected.h5ad")
    model = FedSCGEN.load(trained[0].output("a1") / "trained_model", assays[1].copy(), batch_key="batch")
    expected = model.correct()  # in evaluation mode, which a second correction would show
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-4)
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], model.correct().obsm["X_fedscgen"], atol=1e-4)


def test_a_newcomer_sends_nothing_but_its_name(later):
    clients, controller = later
    check_relayed(clients, controller, "correction")
    ledger = read_ledger(clients.output("newcomer") / "fedscgen" / "ledger.csv")
    assert set(ledger.query("sender == 'newcomer'")["shape"]) == {"names and settings"}
