"""Where training differs from scvi-tools' defaults: the optimizer, and which epoch's weights remain."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import TrainingPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import lightning.pytorch as pl
    from scvi.module.base import LossOutput

MONITOR = "validation_loss"


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says anew at every fit, of which a federation has hundreds."""
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    lightning.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning's own use of a deprecated torch function
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            warnings.filterwarnings("ignore", message=r"The number of training batches \(\d+\) is smaller")
            yield
    finally:
        lightning.setLevel(level)


class FedSCGENTrainingPlan(TrainingPlan):
    """Adam with the published settings, in torch's fused implementation; losses logged once an epoch."""

    def __init__(self, module: torch.nn.Module, **kwargs: Any) -> None:
        published = {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.0, "lr_factor": 0.1, "lr_patience": 13}
        super().__init__(module, **{**published, "lr_scheduler_metric": MONITOR, **kwargs})

    def get_optimizer_creator(self) -> Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]:
        """Fused Adam: one pass over the parameters instead of one per operation."""
        if self.optimizer_name != "Adam":
            return super().get_optimizer_creator()
        return lambda parameters: torch.optim.Adam(
            parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )

    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: Any, mode: str) -> None:
        """Log the two parts of the loss as means over the epoch's cells."""
        n_cells = loss_output.n_obs_minibatch
        parts = {
            f"reconstruction_loss_{mode}": loss_output.reconstruction_loss_sum / n_cells,
            f"kl_local_{mode}": loss_output.kl_local_sum / n_cells,
        }
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=n_cells, sync_dist=self.use_sync_dist)


class RestoreBestEpoch(Callback):
    """Keeps the weights of the epoch with the lowest validation loss, and restores them when the fit ends.

    An instance serves one fit, so that no earlier round's weights can come back.
    """

    def __init__(self) -> None:
        self.best_loss = float("inf")
        self._best: dict[str, torch.Tensor] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy the weights if the loss has improved."""
        loss = float(trainer.callback_metrics[MONITOR])
        if not trainer.sanity_checking and loss < self.best_loss:
            self.best_loss = loss
            self._best = {name: tensor.detach().clone() for name, tensor in pl_module.module.state_dict().items()}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Go back to the best epoch; without any finite validation loss the last one stays."""
        if self._best is not None:
            pl_module.module.load_state_dict(self._best)
