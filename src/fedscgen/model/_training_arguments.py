"""What training may be told: which arguments of scvi-tools' trainer and plan count, and which cells train."""

from __future__ import annotations

import math
from difflib import get_close_matches
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from scvi.train import Trainer, TrainingPlan

from fedscgen._data import check_size
from fedscgen._options import check_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MONITOR = "validation_loss"
MONITORS = (MONITOR, "elbo_validation", "reconstruction_loss_validation", "kl_local_validation")
"""What is known of the validation cells after each epoch."""

_FEWEST_TO_TRAIN = 3  # BatchNorm needs more than one
_UNUSED = {
    "datamodule": "the registered cells are trained on: register those of your data module instead",
    "plan_config": "pass its entries as plan_kwargs={...}",
    "trainer_config": "pass its entries as arguments of train()",
    "on_step": "losses are logged once an epoch",
    "on_epoch": "losses are logged once an epoch",
    "update_only_decoder": "encoder and decoder are trained together",
    "load_sparse_tensor": "the loss is of all genes, and mini-batches are made dense",
    "data_and_attributes": "the expression alone is trained on",
}


class Split(NamedTuple):
    """Positions of the cells to train on, to validate, and to leave alone."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def draw_split(n_cells: int, train_size: float, validation_size: float | None, shuffle: bool) -> Split:
    """Share cells out, by torch's random numbers or, without ``shuffle``, in their order, validation first.

    Raises
    ------
    ValueError
        There are too few cells, or the shares aren't above 0 and at most 1 together.
    """
    check_size(n_cells)
    if not 0 < train_size <= 1:
        raise ValueError(f"train_size={train_size}: choose a share above 0 and at most 1")
    n_train = math.ceil(n_cells * train_size)
    if validation_size is None:
        n_validation = 0 if train_size == 1 else max(1, n_cells - n_train)
        n_train = n_cells - n_validation
    elif validation_size < 0 or train_size + validation_size > 1 + 1e-9:
        raise ValueError(
            f"validation_size={validation_size} beside train_size={train_size}: choose a share from 0 to "
            f"{1 - train_size:.3g}"
        )
    else:
        n_validation = min(math.floor(n_cells * validation_size), n_cells - n_train)
    if n_train < _FEWEST_TO_TRAIN:
        raise ValueError(
            f"train_size={train_size} leaves {n_train} of {n_cells} cells to train on: "
            f"choose a share that leaves at least {_FEWEST_TO_TRAIN}"
        )
    order = torch.randperm(n_cells).numpy() if shuffle else np.arange(n_cells)
    validation, train, test = np.split(order, [n_validation, n_validation + n_train])
    return Split(train, validation, test)


def read_split(parts: Sequence[Any], n_cells: int) -> Split:
    """The split that ``external_indexing`` gives: cells to train on, then to validate, then to leave alone.

    Raises
    ------
    ValueError
        A cell stands in two parts or doesn't exist, or there are too few to train on.
    """
    given = [np.asarray(part, dtype=int).reshape(-1) for part in parts]
    split = Split(*given, *(np.array([], dtype=int) for _ in range(3 - len(given))))
    cells = np.concatenate(split)
    if len(np.unique(cells)) < len(cells) or (len(cells) and not 0 <= cells.min() <= cells.max() < n_cells):
        raise ValueError(f"external_indexing: each of the {n_cells} cells may stand in one part, once, by its position")
    if len(split.train) < _FEWEST_TO_TRAIN:
        raise ValueError(f"external_indexing leaves {len(split.train)} cells to train on, of {_FEWEST_TO_TRAIN} needed")
    return split


def check_arguments(
    plan: Mapping[str, Any], trainer: Mapping[str, Any], splitter: Mapping[str, Any], own_of_plan: Iterable[str]
) -> None:
    """Refuse what would be ignored, and what nobody knows.

    Parameters
    ----------
    plan, trainer, splitter
        Arguments of the training plan, of the trainer and of the data splitter.
    own_of_plan
        What this package's plan takes beside scvi-tools'.

    Raises
    ------
    ValueError
        An argument has no effect here; the message says why.
    TypeError
        There is no such argument.
    """
    for given in (plan, trainer, splitter):
        for name in given.keys() & _UNUSED.keys():
            if given[name] not in (_default_of(name), None, False):
                raise ValueError(f"{name} has no effect on this model: {_UNUSED[name]}")
    known = {*signature(Trainer.__init__).parameters, *signature(pl.Trainer.__init__).parameters, "ckpt_path"}
    _refuse_unknown(trainer, known | _UNUSED.keys(), "train()")
    _refuse_unknown(plan, {*signature(TrainingPlan.__init__).parameters, *own_of_plan}, "plan_kwargs")
    warms_up = plan.get("n_epochs_kl_warmup") is not None or plan.get("n_steps_kl_warmup") is not None
    if plan.get("min_kl_weight") and not warms_up:
        raise ValueError(
            "min_kl_weight is where a warm-up begins: name its length as n_epochs_kl_warmup or n_steps_kl_warmup too"
        )
    if plan.get("reduce_lr_on_plateau") and trainer.get("check_val_every_n_epoch") not in (None, 1):
        raise ValueError("reduce_lr_on_plateau follows every epoch: leave it or check_val_every_n_epoch out")
    monitor = trainer.get("early_stopping_monitor", MONITOR)
    if monitor not in MONITORS:
        raise ValueError(f"early_stopping_monitor={monitor!r}: choose one of {', '.join(map(repr, MONITORS))}")


def check_validated(wishes: Mapping[str, Any], train_size: float) -> None:
    """Refuse what follows the validation cells where there are none."""
    for name, value in wishes.items():
        if value:
            raise ValueError(
                f"{name}={value!r} needs validation cells, and train_size={train_size} leaves none: choose a smaller "
                f"train_size, or leave {name} out"
            )


def check_batch_size(batch_size: int, normalization: str) -> None:
    """Refuse mini-batches of no cell, and of one cell where BatchNorm needs a variance."""
    check_whole("batch_size", batch_size, 1)
    if batch_size == 1 and normalization == "batch":
        raise ValueError(
            "batch_size=1: a mini-batch of one cell has no variance to normalise by; choose at least 2, or "
            "FedSCGEN(adata, normalization='layer')"
        )


def drops_last(split: Split, batch_size: int, fixed_batches: bool, splitter: Mapping[str, Any]) -> bool:
    """Whether to leave an incomplete last mini-batch out; one of one cell has no variance to normalise by.

    Raises
    ------
    ValueError
        It should be left out, and is the only one.
    """
    wished = splitter.get("drop_last", False)
    if wished and len(split.train) < batch_size:
        raise ValueError(f"drop_last leaves no mini-batch: batch_size={batch_size}, {len(split.train)} cells train")
    return len(split.train) > batch_size and (wished or fixed_batches or len(split.train) % batch_size in (1, 2))


def _default_of(name: str) -> Any:
    parameter = signature(TrainingPlan.__init__).parameters.get(name)
    return None if parameter is None else parameter.default


def _refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in given.keys() - known:
        near = get_close_matches(name, known - {"self", "module", "kwargs", "loss_kwargs"}, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{where} got an unknown argument {name!r}{hint}")
