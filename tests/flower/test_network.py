"""The whole of it: a SuperLink and three SuperNodes on loopback, with TLS and node authentication."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from cells import REAL_CELLS
from fedscgen.federation import FederationSettings, simulate
from fedscgen.model import read_model
from flower_network import Network

# landmarks take twelve sums, and over Flower half a minute each
QUICK = {"n_rounds": 2, "n_epochs": 1, "reference": "mean"}


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
            network.start_site(site, data=str(folder / f"{site}.h5ad"))
        yield network


@pytest.fixture(scope="module")
def run_id(network):
    run_id = network.submit(**QUICK)
    status = network.wait(run_id, timeout=300)
    assert status == "finished:completed", network.run_log(run_id)
    return run_id


@pytest.fixture(scope="module")
def simulated(assays):
    scvi.settings.seed = 0
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = FederationSettings.from_preset("paper", **QUICK)
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
    coordinator = pd.read_csv(network.folder / "coordinator" / "ledger-training.csv")
    for site in assays:
        own = pd.read_csv(network.site_folder(site, run_id) / "ledger.csv")
        sent = own[own["sender"] == site]
        arrived = coordinator[coordinator["sender"] == site]
        pd.testing.assert_frame_equal(sent.reset_index(drop=True), arrived.reset_index(drop=True))
        assert set(sent["protection"]) <= {"none", "public", "encrypted", "masked", "shares"}
        assert set(sent.loc[sent["protection"] == "none", "shape"]) <= {"names and settings"}
