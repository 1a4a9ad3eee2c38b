"""The keys of ``config.yml`` that the published app reads, in all forms in which it has had them."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

from fedscgen._options import check_fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Top:
    """Keys outside any section.

    The workflow ``check`` is our own. ``smpc`` is known and has no say: sums are always protected, as ``secure`` says.
    """

    workflow: Literal["train", "correction", "check"] = "train"
    smpc: bool = True
    n_rounds: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Data:
    """The section ``data``."""

    adata: str
    batch_key: str | None = None
    cell_key: str | None = "cell_type"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Model:
    """The section ``model``. ``ref_model`` is known and has no use, as in the published app."""

    init_model: str | None = None
    ref_model: str | None = None
    hidden_layer_sizes: tuple[str, ...] = ()
    z_dimension: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        sizes = set(self.hidden_layer_sizes)
        if len(sizes) > 1 or not all(size.isdecimal() for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={','.join(self.hidden_layer_sizes)!r}: write one whole number, the same for each "
                'hidden layer, such as "800,800"'
            )

    @property
    def of_network(self) -> dict[str, int]:
        """Sizes as the network takes them."""
        sizes = self.hidden_layer_sizes
        layers = {"n_hidden": int(sizes[0]), "n_layers": len(sizes)} if sizes else {}
        return layers | ({} if self.z_dimension is None else {"n_latent": self.z_dimension})


@dataclass(frozen=True)
class Train:
    """The section ``train``; an epoch count and a number of rounds have had two names and two places."""

    lr: float | None = None
    epoch: int | None = None
    n_epochs: int | None = None
    batch_size: int | None = None
    n_rounds: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epoch is not None and self.n_epochs is not None:
            raise ValueError(f"epoch={self.epoch} and n_epochs={self.n_epochs} are the same: keep one")

    def as_settings(self, n_rounds: int | None) -> dict[str, Any]:
        """What is given, under the names of a federation's settings."""
        if n_rounds is not None and self.n_rounds is not None:
            raise ValueError(f"n_rounds={n_rounds} and train.n_rounds={self.n_rounds} are the same: keep one")
        named = {
            "lr": self.lr,
            "n_epochs": self.n_epochs if self.epoch is None else self.epoch,
            "batch_size": self.batch_size,
            "n_rounds": self.n_rounds if n_rounds is None else n_rounds,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class EarlyStopping:
    """The table ``train.early_stopping``, in epochs of a site, which go on through all rounds."""

    early_stopping_metric: Literal["val_loss"] = "val_loss"
    threshold: float = 0.0
    patience: int = 20
    reduce_lr: bool = True
    lr_patience: int = 13
    lr_factor: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threshold != 0:
            raise ValueError(f"threshold={self.threshold}: only 0 is known here, which is any improvement")
        for name in ("patience", "lr_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 epoch")
        if not 0 < self.lr_factor <= 1:
            raise ValueError(f"lr_factor={self.lr_factor}: above 0, at most 1")

    def find_patience(self, n_epochs: int, n_rounds: int) -> int | None:
        """In rounds, as a federation counts; none if it could not be over before the last round."""
        if self.reduce_lr and self.lr_patience < n_epochs * n_rounds:
            logger.warning(
                "early_stopping.reduce_lr=true lowers nothing here: federation.lr_decay lowers the rate by the round"
            )
        rounds = math.ceil(self.patience / n_epochs)
        return rounds if rounds < n_rounds else None
