"""How well the network describes cells: scvi-tools' measures, by its names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS

from fedscgen._options import check_whole
from fedscgen._types import MAX_MISSING_GENES
from fedscgen.model._latent_mixin import LatentMixin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from mudata import MuData

    Batches = Iterable[dict[str, torch.Tensor]]


class LikelihoodMixin(LatentMixin):
    """Evidence lower bound, reconstruction error and marginal likelihood, by the likelihood that the loss stands for.

    A cell's mean squared error over the genes is, but for a constant that is left out, minus the logarithm of a normal
    density around decoded expression, of variance ``n_genes / 2``.
    """

    def get_elbo(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dataloader: Batches | None = None,
        return_mean: bool = True,
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> torch.Tensor:
        """Evidence lower bound: minus reconstruction error and Kullback-Leibler divergence; higher is better.

        Cells are reconstructed from the mean of their posterior, as in validation, so that this is what the history
        has as ``elbo_validation``, with the other sign. The divergence counts in full, whatever the ``kl_weight``.

        Parameters
        ----------
        adata, indices
            As in :meth:`get_latent_representation`.
        batch_size
            Cells that are made dense at a time; 1024 if ``None``.
        dataloader
            Mini-batches as scvi-tools' data loaders give them, instead of the other three.
        return_mean
            ``False`` gives each cell's own, shape ``(n_cells,)``.
        max_missing_genes
            As in :meth:`get_latent_representation`.

        Returns
        -------
        The mean over the cells, or of each cell, on the CPU.

        Raises
        ------
        RuntimeError, ValueError
            As in :meth:`get_latent_representation`; or cells and a ``dataloader`` are given.
        """
        losses = self._losses(adata, indices, batch_size, dataloader, max_missing_genes)
        elbo = torch.cat([-(_sum(loss.reconstruction_loss) + _sum(loss.kl_local)) for loss in losses])
        return elbo.mean() if return_mean else elbo

    def get_reconstruction_error(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dataloader: Batches | None = None,
        return_mean: bool = True,
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> dict[str, torch.Tensor]:
        """Mean squared error over the genes, of cells reconstructed from the mean of their posterior.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, return_mean, max_missing_genes
            As in :meth:`get_elbo`.

        Returns
        -------
        By the name ``"reconstruction_loss"``, as scvi-tools has it.

        Raises
        ------
        RuntimeError, ValueError
            As in :meth:`get_elbo`.
        """
        losses = self._losses(adata, indices, batch_size, dataloader, max_missing_genes)
        error = torch.cat([_sum(loss.reconstruction_loss) for loss in losses])
        return {"reconstruction_loss": error.mean() if return_mean else error}

    def get_marginal_ll(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        n_mc_samples: int = 1000,
        batch_size: int | None = None,
        return_mean: bool = True,
        dataloader: Batches | None = None,
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> torch.Tensor:
        """Logarithm of the cells' marginal likelihood, estimated by sampling from their posteriors; higher is better.

        The estimate is biased towards less. It takes as many samples as the posterior is narrower than the likelihood
        asks for, which with a small ``kl_weight`` it is.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, return_mean, max_missing_genes
            As in :meth:`get_elbo`.
        n_mc_samples
            Samples of each cell's posterior, drawn with torch's random numbers.

        Returns
        -------
        The mean over the cells, or of each cell, on the CPU.

        Raises
        ------
        RuntimeError, ValueError
            As in :meth:`get_elbo`; or ``n_mc_samples`` is below 1.
        """
        check_whole("n_mc_samples", n_mc_samples, 1)
        chunks = self._chunks(adata, indices, batch_size, dataloader, max_missing_genes)
        likelihood = torch.cat(
            [self.module.marginal_ll({REGISTRY_KEYS.X_KEY: chunk}, n_mc_samples, return_mean=False) for chunk in chunks]
        )
        return likelihood.mean() if return_mean else likelihood

    @torch.inference_mode()
    def _losses(self, *cells: Any) -> list[Any]:
        """What the module says of each mini-batch."""
        return [self.module({REGISTRY_KEYS.X_KEY: chunk})[2] for chunk in self._chunks(*cells)]


def _sum(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The parts of a loss of each cell, shape ``(n_cells,)``."""
    return torch.stack(list(parts.values())).sum(dim=0).cpu()
