"""The published federation (Bakhtiari et al. 2025), written down a second time in plain torch, and settings="paper"."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cells import make_adata
from fedscgen.federation import FederationSettings, simulate
from fedscgen.model import FedSCGEN, read_published_weights
from quick import QUICK
from quick import simulate as simulate_quickly

BATCH, LR, SEED = 8, 1e-3, 5
NETWORK = {"n_hidden": 16, "n_latent": 4, "dropout_rate": 0.0}
PAPER = FederationSettings.from_preset("paper", n_rounds=3, batch_size=BATCH, seed=SEED, model=NETWORK)


class PublishedNetwork(nn.Module):
    """scArches' scGen with its own names, without any noise."""

    def __init__(self, n_genes):
        super().__init__()
        n, z = NETWORK["n_hidden"], NETWORK["n_latent"]
        encoder, first, second = nn.Sequential(), nn.Sequential(), nn.Sequential()
        encoder.add_module("L0", nn.Linear(n_genes, n, bias=False))
        for part, n_in, i in ((encoder, n, 1), (first, z, 0), (second, n, 1)):
            part.add_module(f"L{i}", nn.Linear(n_in, n, bias=False))
            part.add_module(f"N{i}", nn.BatchNorm1d(n))
            part.add_module(f"A{i}", nn.LeakyReLU(0.3))
        ends = {"mean_encoder": nn.Linear(n, z), "log_var_encoder": nn.Linear(n, z)}
        self.encoder = nn.ModuleDict({"FC": encoder, **ends})
        output = nn.Sequential(nn.Linear(n, n_genes))
        self.decoder = nn.ModuleDict({"FirstL": first, "HiddenL": second, "recon_decoder": output})

    def loss(self, x):
        hidden = self.encoder["FC"](x)
        mean, log_variance = self.encoder["mean_encoder"](hidden), self.encoder["log_var_encoder"](hidden)
        decoded = self.decoder["recon_decoder"](self.decoder["HiddenL"](self.decoder["FirstL"](mean)))
        kl = 0.5 * (log_variance.exp() - log_variance - 1 + mean**2).sum()
        return nn.functional.mse_loss(decoded, x) + 1e-6 * kl


def train_as_published(network, sites, n_rounds, n_epochs):
    """The final weights, given each site's training cells in their order."""
    clients, weights = [deepcopy(network).train() for _ in sites], network.state_dict()
    for _ in range(n_rounds):
        for client, cells in zip(clients, sites, strict=True):
            for name, parameter in client.named_parameters():  # and no buffers: statistics stay its own
                parameter.data.copy_(weights[name])
            adam = torch.optim.Adam(client.parameters(), lr=LR, eps=1e-8)
            for _ in range(n_epochs):
                for start in range(0, len(cells) - BATCH + 1, BATCH):
                    adam.zero_grad()
                    client.loss(cells[start : start + BATCH]).backward()
                    adam.step()
        states = [client.state_dict() for client in clients]
        weights = {name: sum(state[name] for state in states) / len(states) for name in weights}
    return weights


def training_cells(adata):
    """Each site's training cells in the order in which the site draws them."""
    sites = []
    for position, site in enumerate(adata.obs["batch"].cat.categories):
        cells = adata[adata.obs["batch"] == site].copy()
        with torch.random.fork_rng():
            torch.manual_seed(SEED + position)
            FedSCGEN.setup_anndata(cells)
            FedSCGEN(cells, **PAPER.model)
            order = torch.randperm(cells.n_obs).numpy()
        n_validation = cells.n_obs - math.ceil(0.9 * cells.n_obs)
        sites.append(torch.tensor(cells.X.toarray()[order[n_validation:]]))
    return sites


@pytest.fixture
def without_noise(monkeypatch):
    """The latent vector is the posterior's mean in training, too: random numbers can't be had alike in both."""
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda posterior: posterior.loc)


@pytest.fixture
def published(tmp_path):
    """Cells, the file of first weights, and the first and last weights of the published federation."""
    adata = make_adata(n_cells=162)
    adata.X = adata.X.multiply(1 + 2 * (adata.obs["batch"] == "site0").to_numpy()[:, None]).tocsr().astype(np.float32)
    sites = training_cells(adata)
    assert all(len(cells) % BATCH for cells in sites), "nothing would be left out of the mini-batches"
    assert len({len(cells) for cells in sites}) > 1, "an average weighted by cells would be the same"
    network = PublishedNetwork(adata.n_vars)
    torch.save(network.state_dict(), tmp_path / "first.pt")
    torch.save(train_as_published(network, sites, PAPER.n_rounds, PAPER.n_epochs), tmp_path / "last.pt")
    return adata, tmp_path / "first.pt", *(read_published_weights(tmp_path / name) for name in ("first.pt", "last.pt"))


def distance(weights, first, last):
    """The largest difference from the last weights, as a share of what training has moved in the same array."""
    assert weights.keys() == last.keys()
    return max(np.abs(weights[name] - last[name]).max() / np.abs(last[name] - first[name]).max() for name in last)


@pytest.mark.usefixtures("without_noise")
def test_the_papers_preset_is_the_published_federation(published):
    adata, file, first, last = published
    result = simulate(adata, settings=PAPER, init_model=file, show_progress=False)
    assert distance(result.model.get_weights(), first, last) < 0.005
    alone = result.model.correct().obsm["X_fedscgen"]  # with the statistics that the sites have averaged
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], alone, atol=1e-5)


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize(
    "change",
    [{"strategy": "weighted_fedavg"}, {"batchnorm": "pooled"}, {"batchnorm": "local"}, {"fixed_batches": False}],
)
def test_each_part_of_the_published_federation_matters(published, change):
    adata, file, first, last = published
    result = simulate(adata, settings=replace(PAPER, **change), init_model=file, show_progress=False)
    assert distance(result.model.get_weights(), first, last) > 0.02


def test_statistics_are_averaged_under_masks_as_in_the_clear(adata):
    options = {**QUICK, "strategy": "fedavg", "batchnorm": "averaged", "reference": "mean"}
    plain, masked = (simulate_quickly(adata, secure=secure, **options).model for secure in ("plain", "masked"))
    for name, array in plain.get_weights().items():
        np.testing.assert_allclose(masked.get_weights()[name], array, atol=1e-4, err_msg=name)
