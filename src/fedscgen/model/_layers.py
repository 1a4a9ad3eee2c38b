"""The blocks of the published network (scArches' scGen: Lotfollahi et al. 2019; Bakhtiari et al. 2025)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

_NEGATIVE_SLOPE = 0.3


def hidden_block(n_in: int, n_out: int, dropout_rate: float) -> nn.Sequential:
    """Linear without bias, BatchNorm, LeakyReLU, Dropout: ``(n_cells, n_in)`` to ``(n_cells, n_out)``."""
    return nn.Sequential(
        nn.Linear(n_in, n_out, bias=False),
        nn.BatchNorm1d(n_out),
        nn.LeakyReLU(_NEGATIVE_SLOPE),
        nn.Dropout(dropout_rate),
    )


class Encoder(nn.Module):
    """Expression to mean and log-variance of the latent posterior. The first layer is linear only, as published."""

    def __init__(self, n_input: int, n_hidden: int, n_layers: int, n_latent: int, dropout_rate: float) -> None:
        super().__init__()
        blocks = [hidden_block(n_hidden, n_hidden, dropout_rate) for _ in range(n_layers - 1)]
        self.hidden = nn.Sequential(nn.Linear(n_input, n_hidden), *blocks)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(n_cells, n_input)`` to two tensors of shape ``(n_cells, n_latent)``."""
        hidden = self.hidden(x)
        return self.mean(hidden), self.log_variance(hidden)


class Decoder(nn.Module):
    """Latent vectors back to expression."""

    def __init__(self, n_latent: int, n_hidden: int, n_layers: int, n_output: int, dropout_rate: float) -> None:
        super().__init__()
        sizes = [n_latent, *[n_hidden] * n_layers]
        blocks = [hidden_block(n_in, n_out, dropout_rate) for n_in, n_out in pairwise(sizes)]
        self.hidden = nn.Sequential(*blocks)
        self.output = nn.Linear(n_hidden, n_output)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``(n_cells, n_latent)`` to ``(n_cells, n_output)``."""
        return self.output(self.hidden(z))
