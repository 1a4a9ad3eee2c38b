"""What a saved model tells of its training: the losses, and which cells have validated."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedscgen.model._arrays_file import read_arrays
from fedscgen.model._model_folder import CheckpointError
from fedscgen.model._training_arguments import Split

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fedscgen.model._arrays_file import Shapes

logger = logging.getLogger(__name__)

TRAINING = "training.npz"
_LOSS, _EPOCHS, _STEPS = "history.", "epoch.", "step."  # values, and of which epochs or steps they are
_OF_SPLIT = {"cells": (32,), "wishes": (3,)}
_MOST_EPOCHS = 10_000_000


def write_training(path: Path, model: Any) -> None:
    """Write the losses of each epoch, and a code for each cell in the order of their names.

    Of the names there is a hash of all together, by which they are known again in any order.
    """
    arrays = {}
    for name, frame in (model.history_ or {}).items():
        arrays[_LOSS + name] = frame.iloc[:, 0].to_numpy(dtype=np.float64)
        counter = _STEPS if frame.index.name == "step" else _EPOCHS
        arrays[counter + name] = np.asarray(frame.index, dtype=np.int64)
    (train_size, validation_size, shuffled), split = model._drawn_split
    codes = np.zeros(model.adata.n_obs, dtype=np.int8)
    for code, cells in enumerate(split):
        codes[cells] = code
    order, digest = _find_order(model.adata.obs_names)
    wishes = [train_size, np.nan if validation_size is None else validation_size, shuffled]
    np.savez(path, split=codes[order], cells=digest, wishes=np.array(wishes, dtype=np.float64), **arrays)


def restore_training(path: Path, model: Any) -> None:
    """Give a model its losses and, if its cells are those of the training, their split.

    Raises
    ------
    CheckpointError
        The file is damaged.
    """
    if not path.exists():
        return
    try:
        arrays = read_arrays(path, _check)
        codes, wishes = arrays["split"].astype(int), arrays["wishes"].astype(float)
        if not (np.isin(codes, (0, 1, 2)).all() and 0 < wishes[0] <= 1 and wishes[2] in (0, 1)):
            raise ValueError(f"{path.name} has a split that is none")
    except ValueError as error:
        raise CheckpointError(f"{path.parent} holds a damaged or foreign model: {error}") from error
    names = [name.removeprefix(_LOSS) for name in arrays if name.startswith(_LOSS)]
    model.history_ = {name: _read_losses(arrays, name) for name in names}
    order, digest = _find_order(model.adata.obs_names)
    if len(codes) != model.adata.n_obs or not np.array_equal(digest, arrays["cells"]):
        logger.info("other cells than the model was trained on: a training draws its own that validate")
        return
    in_own_order = np.empty(len(codes), dtype=int)
    in_own_order[order] = codes
    split = Split(*(np.flatnonzero(in_own_order == code) for code in range(3)))
    validation_size = None if np.isnan(wishes[1]) else float(wishes[1])
    model._drawn_split = (float(wishes[0]), validation_size, bool(wishes[2])), split
    model.keeps_training = True


def _read_losses(arrays: Mapping[str, np.ndarray], name: str) -> pd.DataFrame:
    counter = _STEPS if _STEPS + name in arrays else _EPOCHS
    index = pd.Index(arrays[counter + name], name=counter.rstrip("."))
    return pd.DataFrame({name: arrays[_LOSS + name]}, index=index)


def _check(shapes: Shapes) -> None:
    """Refuse other arrays than those that :func:`write_training` writes."""
    for name, expected in _OF_SPLIT.items():
        if shapes.get(name) != expected:
            raise ValueError(f"{TRAINING}: {name!r} has shape {shapes.get(name, 'none')}, expected {expected}")
    if len(shapes.get("split", ())) != 1:
        raise ValueError(f"{TRAINING}: 'split' is missing, or has several dimensions")
    for name, shape in shapes.items():
        kind, _, column = name.partition(".")
        if name in ("split", *_OF_SPLIT):
            continue
        twins = [_EPOCHS + column, _STEPS + column] if kind + "." == _LOSS else [_LOSS + column]
        known = kind + "." in (_LOSS, _EPOCHS, _STEPS)
        if not known or len(shape) != 1 or shape not in [shapes.get(twin) for twin in twins]:
            raise ValueError(f"{TRAINING}: {name!r:.80} is no column of losses with its epochs")
        if shape[0] > _MOST_EPOCHS:
            raise ValueError(f"{TRAINING}: {name!r:.80} has {shape[0]} epochs: {_MOST_EPOCHS} is the most")


def _find_order(names: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the cells in the order of their names, and a hash of all names."""
    texts = np.asarray(names.astype(str), dtype=object)
    order = np.argsort(texts, kind="stable")
    digest = hashlib.sha256("\n".join(texts[order]).encode()).digest()
    return order, np.frombuffer(digest, dtype=np.uint8)
