"""Where training differs from scvi-tools' defaults: mini-batches, the optimizer, which epoch's weights remain."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.dataloaders import AnnDataLoader, DataSplitter
from scvi.train import TrainingPlan

from fedscgen._rows import is_in_memory
from fedscgen.model._device_batches import DeviceBatches, FileBatches, fits
from fedscgen.model._training_arguments import MONITOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import lightning.pytorch as pl
    import numpy as np

logger = logging.getLogger(__name__)

Batches: TypeAlias = AnnDataLoader | DeviceBatches | FileBatches

_OWN_OF_BATCHES = {"batch_size", "data_and_attributes"}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says again at every fit; a federation has hundreds of fits."""
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


@contextmanager
def keep_interrupted(model: Any) -> Iterator[None]:
    """Leave a model usable whose training is interrupted, and let the interruption be one that notebooks survive.

    Lightning ends the process instead, and has signals ignored from then on.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as interruption:
        if not isinstance(interruption, KeyboardInterrupt) and not isinstance(
            interruption.__context__, KeyboardInterrupt
        ):
            raise
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        model.module.eval()
        model.is_trained_ = True
        logger.warning("training was interrupted: the model keeps the weights of its best epoch, or the last ones")
        raise KeyboardInterrupt from None


class BatchSplitter(DataSplitter):
    """scvi-tools' data splitter, with mini-batches that lie on the GPU or are the same in every epoch.

    Parameters
    ----------
    fixed_batches
        Take the training cells in the order in which they are given, instead of a new one in every epoch.
    *args, **kwargs
        As scvi-tools' data splitter takes.
    """

    def __init__(self, *args: Any, fixed_batches: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fixed_batches = fixed_batches

    def train_dataloader(self) -> Batches:
        """Give the training cells in mini-batches."""
        return self._batches(self.train_idx, shuffle=not self._fixed_batches, drop_last=self.drop_last)

    def val_dataloader(self) -> Batches | None:
        """Give the validation cells in mini-batches, if there are any."""
        return self._batches(self.val_idx, shuffle=False, drop_last=False) if len(self.val_idx) else None

    @cached_property
    def _in_rows(self) -> sparse.csr_matrix:
        """Cells that are given in columns, through all of which each mini-batch would go."""
        return self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY).tocsr()

    def _batches(self, rows: np.ndarray, *, shuffle: bool, drop_last: bool) -> Batches:
        matrix, device = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY), self.trainer.strategy.root_device
        by_columns = sparse.issparse(matrix) and matrix.format == "csc"
        asked = {name for name, value in self.data_loader_kwargs.items() if value}
        if asked <= _OWN_OF_BATCHES and not is_in_memory(matrix):
            size = self.data_loader_kwargs["batch_size"]
            return FileBatches(matrix, rows, size, shuffle=shuffle, drop_last=drop_last)
        if asked <= _OWN_OF_BATCHES:
            matrix = self._in_rows if by_columns else matrix
            on_device = fits(matrix, len(rows), device)
            if on_device or by_columns:
                size, place = self.data_loader_kwargs["batch_size"], device if on_device else torch.device("cpu")
                return DeviceBatches(matrix, rows, size, shuffle=shuffle, drop_last=drop_last, device=place)
        return AnnDataLoader(
            self.adata_manager,
            indices=rows,
            shuffle=shuffle,
            drop_last=drop_last,
            load_sparse_tensor=self.load_sparse_tensor,
            pin_memory=self.pin_memory,
            **self.data_loader_kwargs,
        )


class FedSCGENTrainingPlan(TrainingPlan):
    """Adam with the published settings, in torch's fused implementation; losses logged once an epoch.

    Logging every mini-batch takes Lightning a tenth of the time that a small mini-batch takes to train.

    Parameters
    ----------
    module
        The network.
    proximal_weight
        Half of it times the squared distance from the first weights is added to the training loss.
    **kwargs
        As scvi-tools' training plan takes; without a warm-up of the divergence's weight, unless one is named.
    """

    own_arguments = ("proximal_weight",)

    def __init__(self, module: torch.nn.Module, *, proximal_weight: float = 0.0, **kwargs: Any) -> None:
        published = {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.0, "lr_factor": 0.1, "lr_patience": 13}
        options = {"n_epochs_kl_warmup": None, "lr_scheduler_metric": MONITOR}
        super().__init__(module, **{**published, **options, **kwargs})
        self._proximal_weight = proximal_weight
        self._first: list[torch.Tensor] = []
        self._losses: list[tuple[int, torch.Tensor]] = []
        self._set_aside: list[tuple[int, torch.Tensor]] = []

    def initialize_train_metrics(self) -> None:
        """Make none of scvi-tools' running metrics: the epoch's mean losses are all that is logged."""

    def initialize_val_metrics(self) -> None:
        """As for training."""

    def get_optimizer_creator(self) -> Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]:
        """Fused Adam: one pass over the parameters instead of one per operation."""
        if self.optimizer_name != "Adam":
            creator: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer] = super().get_optimizer_creator()
            return creator
        return lambda parameters: torch.optim.Adam(
            parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )

    def on_fit_start(self) -> None:
        """Remember where training began."""
        if self._proximal_weight > 0:
            self._first = [parameter.detach().clone() for parameter in self.module.parameters()]

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Loss of a mini-batch, and of the distance from the first weights."""
        loss = self._step(batch)
        if not self._first:
            return loss
        pairs = zip(self.module.parameters(), self._first, strict=True)
        return (
            loss + self._proximal_weight / 2 * torch.stack([((now - first) ** 2).sum() for now, first in pairs]).sum()
        )

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Loss of a mini-batch."""
        self._step(batch)

    def on_train_epoch_end(self) -> None:
        """Log ``train_loss`` and its parts."""
        self._log_losses("train")

    def on_validation_epoch_start(self) -> None:
        """Put the training losses aside: validation runs before the training epoch ends."""
        self._set_aside, self._losses = self._losses, []

    def on_validation_epoch_end(self) -> None:
        """Log ``validation_loss`` and its parts."""
        self._log_losses("validation")
        self._losses = self._set_aside

    def _step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        _, _, output = self.module(batch, loss_kwargs={"kl_weight": self.kl_weight})
        with torch.no_grad():
            parts = (output.loss, output.reconstruction_loss_sum, output.kl_local_sum)
            self._losses.append((output.n_obs_minibatch, torch.stack(parts)))
        loss: torch.Tensor = output.loss
        return loss

    def _log_losses(self, mode: str) -> None:
        """Log means over the epoch's cells, and forget the epoch."""
        sizes = torch.tensor([size for size, _ in self._losses], dtype=torch.float)
        loss, reconstruction, kl = torch.stack([parts for _, parts in self._losses]).cpu().T  # each (n_batches,)
        n_cells = sizes.sum()
        self._losses = []
        options = {"on_epoch": True, "sync_dist": self.use_sync_dist, "batch_size": int(n_cells)}
        self.log(f"{mode}_loss", (loss * sizes).sum() / n_cells, prog_bar=True, **options)
        self.log(f"elbo_{mode}", (reconstruction + kl).sum() / n_cells, **options)
        self.log(f"reconstruction_loss_{mode}", reconstruction.sum() / n_cells, **options)
        self.log(f"kl_local_{mode}", kl.sum() / n_cells, **options)


class RestoreBestEpoch(Callback):
    """Keeps the weights of the epoch that validates best, and restores them when the fit ends.

    An instance serves one fit, so that no earlier round's weights can come back. Weights are copied only once training
    goes on from them.

    Parameters
    ----------
    monitor
        What is logged of the validation cells.
    mode
        ``"min"`` if the lowest is best, else ``"max"``.
    """

    def __init__(self, monitor: str = MONITOR, mode: str = "min") -> None:
        self._monitor = monitor
        self._sign = 1 if mode == "min" else -1
        self._best_loss = float("inf")
        self._best_is_current = False
        self._best: dict[str, torch.Tensor] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Note whether the loss has improved."""
        loss = self._sign * float(trainer.callback_metrics[self._monitor])
        self._best_is_current = loss < self._best_loss
        self._best_loss = min(loss, self._best_loss)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy the weights if they are the best so far."""
        if self._best_is_current:
            self._best = {name: tensor.detach().clone() for name, tensor in pl_module.module.state_dict().items()}
            self._best_is_current = False  # until an epoch validates better; not every one validates

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Go back to the best epoch, as at the end."""
        self.on_fit_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Go back to the best epoch; without any finite validation loss the last one stays."""
        if self._best is not None and not self._best_is_current:
            pl_module.module.load_state_dict(self._best)


class _IdleMonitor(LearningRateMonitor):
    """Takes the place of scvi-tools' monitor of a falling learning rate, which fails where there is no logger."""

    def on_train_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_train_epoch_start(self, *args: Any, **kwargs: Any) -> None: ...


def choose_callbacks(monitored: Mapping[str, Any], *, stops: bool, logs: bool) -> list[Callback]:
    """What watches a training beside what its caller passes."""
    restoring = RestoreBestEpoch(monitored["early_stopping_monitor"], monitored["early_stopping_mode"])
    return [*([restoring] if stops else []), *([] if logs else [_IdleMonitor()])]
