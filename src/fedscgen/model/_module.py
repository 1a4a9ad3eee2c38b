"""The variational auto-encoder as a scvi-tools module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch.distributions import Normal

from fedscgen._types import check_choice
from fedscgen.model._layers import Decoder, Encoder, LinearPath, Normalization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from fedscgen._types import NamedArrays
    from fedscgen.principal_components import PrincipalComponents

_MIN_SCALE = 1e-4
_CENTER, _AXES = "linear_path.center", "linear_path.axes"
_LAST_LAYERS = ("encoder.mean.", "encoder.log_variance.", "decoder.output.")
_LOG_VARIANCE = "encoder.log_variance.bias"
_FIRST_LOG_VARIANCE = -4.0  # of the posterior around principal components, whose variances are of the order of 1


class FedVAE(BaseModuleClass):
    """scGen's variational auto-encoder, without any batch or label input.

    With a linear path it begins as the cells' principal components (:meth:`begin_at`): training adds to them what
    isn't linear.

    Parameters
    ----------
    n_input
        Genes.
    n_hidden
        Units of every hidden layer.
    n_layers
        Hidden layers of encoder and decoder each.
    n_latent
        Dimensions of the latent space.
    dropout_rate
        Share of hidden units dropped in training.
    kl_weight
        What the sum of all Kullback-Leibler divergences is multiplied by.
    normalization
        ``"batch"`` or ``"layer"``: what follows every linear map of a hidden layer but the encoder's first.
    linear_path
        Let a linear map lead past the hidden layers of encoder and decoder. ``False`` is the published network, whose
        first layer has no bias.
    """

    def __init__(
        self,
        n_input: int,
        *,
        n_hidden: int = 800,
        n_layers: int = 2,
        n_latent: int = 20,
        dropout_rate: float = 0.05,
        kl_weight: float = 1e-6,
        normalization: Normalization = "batch",
        linear_path: bool = True,
    ) -> None:
        super().__init__()
        check_choice(normalization, Normalization, "normalization")
        for name, size in {"n_hidden": n_hidden, "n_layers": n_layers, "n_latent": n_latent}.items():
            if size < 1:
                raise ValueError(f"{name}={size}: at least 1")
        self.kl_weight = kl_weight
        self.encoder = Encoder(
            n_input, n_hidden, n_layers, n_latent, dropout_rate, normalization, first_bias=linear_path
        )
        self.decoder = Decoder(n_latent, n_hidden, n_layers, n_input, dropout_rate, normalization)
        self.linear_path = LinearPath(n_input, n_latent) if linear_path else None

    @staticmethod
    def axes_of(weights: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The axes of the linear path, shape ``(n_latent, n_genes)``, if these weights have one."""
        return weights.get(_AXES)

    @staticmethod
    def begin_at(components: PrincipalComponents, weights: Mapping[str, np.ndarray]) -> NamedArrays:
        """Weights of a network that encodes and decodes along principal components, and else as ``weights``.

        The last layer of encoder and decoder is zero, so that the hidden layers have no effect before training.
        """
        zero = {name: np.zeros_like(weights[name]) for name in weights if name.startswith(_LAST_LAYERS)}
        center, axes = (array.astype(np.float32) for array in components)
        log_variance = np.full_like(weights[_LOG_VARIANCE], _FIRST_LOG_VARIANCE)
        return {**weights, **zero, _LOG_VARIANCE: log_variance, _CENTER: center, _AXES: axes}

    def weights(self) -> NamedArrays:
        """All parameters and BatchNorm statistics by name, without integer counters.

        Memory is shared with the network where it lives on the CPU.
        """
        return {name: t.cpu().numpy() for name, t in self.state_dict().items() if t.is_floating_point()}

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any], **_: Any
    ) -> dict[str, Tensor]:
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def inference(self, x: Tensor) -> dict[str, Any]:
        """Encode ``x`` of shape ``(n_cells, n_input)``; ``z`` is a sample in training, else the posterior mean."""
        mean, log_variance = self.encoder(x)
        if self.linear_path is not None:
            mean = mean + self.linear_path.encode(x)
        qz = Normal(mean, torch.exp(0.5 * log_variance) + _MIN_SCALE, validate_args=False)
        return {"qz": qz, "z": qz.rsample() if self.training else mean}

    @auto_move_data
    def generative(self, z: Tensor) -> dict[str, Tensor]:
        """Decode ``z`` of shape ``(n_cells, n_latent)`` to mean expression ``px``, ``(n_cells, n_input)``."""
        px = self.decoder(z)
        return {"px": px if self.linear_path is None else px + self.linear_path.decode(z)}

    @auto_move_data
    def decode_change(self, before: Tensor, after: Tensor) -> Tensor:
        """What ``after`` is decoded to less what ``before`` is, ``(n_cells, n_input)``.

        The last layer is linear, and so it is taken once, of the difference.
        """
        change = self.decoder.hidden(after) - self.decoder.hidden(before)
        decoded: Tensor = change @ self.decoder.output.weight.T
        return decoded if self.linear_path is None else decoded + (after - before) @ self.linear_path.axes

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Tensor],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Mean squared error over all entries plus the network's ``kl_weight`` times the sum of KL(q(z|x) || N(0, 1)).

        As published (Bakhtiari et al. 2025; scArches' scGen). The argument ``kl_weight`` multiplies the network's own,
        as in a warm-up.
        """
        squared_error = (tensors[REGISTRY_KEYS.X_KEY] - generative_outputs["px"]) ** 2  # (n_cells, n_input)
        qz = inference_outputs["qz"]
        kl = 0.5 * (qz.loc**2 + qz.scale**2 - 1) - torch.log(qz.scale)  # (n_cells, n_latent)
        reconstruction = squared_error.mean(dim=1)
        return LossOutput(
            loss=reconstruction.mean() + kl_weight * self.kl_weight * kl.sum(),
            reconstruction_loss=reconstruction,
            kl_local=kl.sum(dim=1),
        )

    @torch.inference_mode()
    def marginal_ll(self, tensors: dict[str, Tensor], n_mc_samples: int = 1000, return_mean: bool = True) -> Tensor:
        """Logarithm of each cell's marginal likelihood by importance sampling, or its mean over the cells.

        The likelihood of a cell, given its latent vector, is ``exp(-mean squared error)``.
        """
        qz: Any = self.inference(tensors[REGISTRY_KEYS.X_KEY])["qz"]
        x = tensors[REGISTRY_KEYS.X_KEY].to(qz.loc.device)
        prior: Any = Normal(torch.zeros_like(qz.loc), torch.ones_like(qz.scale), validate_args=False)
        total = torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(n_mc_samples):
            z = qz.sample()
            error = ((x - self.generative(z)["px"]) ** 2).mean(dim=1)
            total = torch.logaddexp(total, (prior.log_prob(z) - qz.log_prob(z)).sum(dim=1) - error)
        likelihood = (total - math.log(n_mc_samples)).cpu()
        return likelihood.mean() if return_mean else likelihood
