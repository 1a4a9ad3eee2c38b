"""The published network's blocks (scArches' scGen: Lotfollahi et al. 2019; Bakhtiari et al. 2025), and one more."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

_NEGATIVE_SLOPE = 0.3

Normalization = Literal["batch", "layer"]
_NORMALIZATIONS: dict[Normalization, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def hidden_block(n_in: int, n_out: int, dropout_rate: float, normalization: Normalization) -> nn.Sequential:
    """Linear without bias, normalization, LeakyReLU, Dropout: ``(n_cells, n_in)`` to ``(n_cells, n_out)``."""
    return nn.Sequential(
        nn.Linear(n_in, n_out, bias=False),
        _NORMALIZATIONS[normalization](n_out),
        nn.LeakyReLU(_NEGATIVE_SLOPE),
        nn.Dropout(dropout_rate),
    )


class Encoder(nn.Module):
    """Expression to mean and log-variance of the latent posterior.

    The first layer is linear only, as published; with ``first_bias`` it has a bias, which the published one lacks.
    """

    def __init__(
        self,
        n_input: int,
        n_hidden: int,
        n_layers: int,
        n_latent: int,
        dropout_rate: float,
        normalization: Normalization = "batch",
        first_bias: bool = True,
    ) -> None:
        super().__init__()
        blocks = [hidden_block(n_hidden, n_hidden, dropout_rate, normalization) for _ in range(n_layers - 1)]
        self.hidden = nn.Sequential(nn.Linear(n_input, n_hidden, bias=first_bias), *blocks)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(n_cells, n_input)`` to two tensors of shape ``(n_cells, n_latent)``."""
        hidden = self.hidden(x)
        return self.mean(hidden), self.log_variance(hidden)


class Decoder(nn.Module):
    """Latent vectors back to expression."""

    def __init__(
        self,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        n_output: int,
        dropout_rate: float,
        normalization: Normalization = "batch",
    ) -> None:
        super().__init__()
        sizes = [n_latent, *[n_hidden] * n_layers]
        blocks = [hidden_block(n_in, n_out, dropout_rate, normalization) for n_in, n_out in pairwise(sizes)]
        self.hidden = nn.Sequential(*blocks)
        self.output = nn.Linear(n_hidden, n_output)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(n_cells, n_latent)`` to ``(n_cells, n_output)``."""
        decoded: Tensor = self.output(self.hidden(z))
        return decoded


class LinearPath(nn.Module):
    """What leads past the hidden layers: to fixed axes through the cells' center, and back.

    Zero, and so without effect, until both are set.
    """

    center: Tensor
    axes: Tensor

    def __init__(self, n_genes: int, n_latent: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_genes))
        self.register_buffer("axes", torch.zeros(n_latent, n_genes))

    def encode(self, x: Tensor) -> Tensor:
        """Map ``(n_cells, n_genes)`` to ``(n_cells, n_latent)``."""
        return (x - self.center) @ self.axes.T

    def decode(self, z: Tensor) -> Tensor:
        """Map ``(n_cells, n_latent)`` to ``(n_cells, n_genes)``."""
        return self.center + z @ self.axes
