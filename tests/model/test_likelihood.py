"""How well a model describes cells, against what numpy makes of its latent vectors and its decoder."""

import inspect

import numpy as np
import pytest
import torch
from scvi.model.base import VAEMixin

from cells import SMALL, make_adata
from fedscgen.model import FedSCGEN

MEASURES = ("get_elbo", "get_reconstruction_error", "get_marginal_ll", "get_latent_representation")


def decode(model, latent):
    with torch.no_grad():
        return model.module.generative(torch.tensor(latent, dtype=torch.float32))["px"].numpy()


def parts_of_elbo(model, adata):
    """Squared error and divergence of each cell, from the posterior's mean and variance."""
    mean, variance = model.get_latent_representation(return_dist=True)
    error = ((adata.X.toarray() - decode(model, mean)) ** 2).mean(axis=1)
    return error, 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1)


def test_elbo_and_reconstruction_error_are_those_of_the_latent_vectors(trained, adata):
    error, divergence = parts_of_elbo(trained, adata)
    each = trained.get_elbo(return_mean=False, batch_size=32)
    assert each.shape == (150,)
    np.testing.assert_allclose(each, -error - divergence, rtol=1e-4)
    np.testing.assert_allclose(trained.get_elbo(), each.mean(), rtol=1e-6)
    assert trained.get_elbo().ndim == 0
    of_some = trained.get_reconstruction_error(indices=[3, 1], return_mean=False)["reconstruction_loss"]
    np.testing.assert_allclose(of_some, error[[3, 1]], rtol=1e-4)
    assert trained.get_reconstruction_error()["reconstruction_loss"].ndim == 0


def test_elbo_is_what_validation_had_in_the_last_epoch(adata):
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train(2, early_stopping=False, enable_progress_bar=False)
    elbo = model.get_elbo(indices=model.validation_indices)
    np.testing.assert_allclose(-elbo, model.history["elbo_validation"].iloc[-1].item(), rtol=1e-5)


def test_marginal_likelihood_is_the_integral_over_the_latent_space():
    adata = make_adata(n_cells=20)
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, n_hidden=8, n_latent=1)
    model.train_local(1)
    log_variance = model.module.encoder.log_variance
    torch.nn.init.zeros_(log_variance.weight)
    torch.nn.init.constant_(log_variance.bias, 1.0)  # wider than the likelihood, so that few samples do
    places = np.linspace(-12, 12, 4001)
    prior = np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi)
    error = ((adata.X.toarray()[:, None] - decode(model, places[:, None])) ** 2).mean(axis=2)
    expected = np.log(np.trapezoid(np.exp(-error) * prior, places, axis=1))
    np.testing.assert_allclose(model.get_marginal_ll(n_mc_samples=4000, return_mean=False), expected, atol=0.15)
    np.testing.assert_allclose(model.get_marginal_ll(n_mc_samples=4000, batch_size=8), expected.mean(), atol=0.05)


def test_cells_may_come_from_elsewhere_in_another_order_of_genes(trained, adata):
    other = adata[:, ::-1].copy()
    other.obs["batch"] = "new"
    np.testing.assert_allclose(trained.get_elbo(other), trained.get_elbo(), rtol=1e-5)


def test_mini_batches_may_come_from_scvi_tools(trained):
    loader = trained._make_data_loader(adata=trained.adata, batch_size=40)
    np.testing.assert_allclose(trained.get_elbo(dataloader=loader), trained.get_elbo(), rtol=1e-5)
    np.testing.assert_allclose(
        trained.get_latent_representation(dataloader=loader), trained.get_latent_representation(), atol=1e-5
    )


@pytest.mark.parametrize("name", MEASURES)
def test_a_mini_batch_with_a_missing_value_is_refused(trained, name):
    batches = list(trained._make_data_loader(adata=trained.adata, batch_size=40))
    batches[1]["X"] = batches[1]["X"].clone()
    batches[1]["X"][0, 0] = torch.nan
    with pytest.raises(ValueError, match="mini-batch of the dataloader holds NaN"):
        getattr(trained, name)(dataloader=batches)


@pytest.mark.parametrize("name", MEASURES)
def test_arguments_stand_in_scvi_tools_order(name):
    parameters, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (FedSCGEN, VAEMixin))
    own = [one for one, parameter in parameters.items() if parameter.kind != parameter.KEYWORD_ONLY]
    assert own == list(theirs)[: len(own)]
    assert set(parameters) - set(own) == {"max_missing_genes"}


@pytest.mark.parametrize("name", MEASURES)
def test_what_cannot_be_measured_is_refused(trained, adata, name):
    FedSCGEN.setup_anndata(adata)
    with pytest.raises(RuntimeError, match="train"):
        getattr(FedSCGEN(adata, **SMALL), name)()
    with pytest.raises(ValueError, match="pass either a dataloader, or cells"):
        getattr(trained, name)(indices=[1], dataloader=[])
    with pytest.raises(ValueError, match="batch_size"):
        getattr(trained, name)(batch_size=0)
