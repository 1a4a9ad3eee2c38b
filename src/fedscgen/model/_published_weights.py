"""Weights of the published network, as scArches' scGen saves them, under the names that they have here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from fedscgen.model._save_load import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen._types import NamedArrays

_PARTS = {"L": "0", "N": "1"}  # the linear map and the normalization of a hidden block
_COUNTER = ".num_batches_tracked"  # an integer, but a float where it has been averaged
_LAYERS = (
    (r"encoder\.FC\.L0\.", lambda _: "encoder.hidden.0."),
    (r"encoder\.FC\.([LN])(\d+)\.", lambda m: f"encoder.hidden.{m[2]}.{_PARTS[m[1]]}."),
    (r"encoder\.mean_encoder\.", lambda _: "encoder.mean."),
    (r"encoder\.log_var_encoder\.", lambda _: "encoder.log_variance."),
    (r"decoder\.(?:FirstL|HiddenL)\.([LN])(\d+)\.", lambda m: f"decoder.hidden.{m[2]}.{_PARTS[m[1]]}."),
    (r"decoder\.recon_decoder\.0\.", lambda _: "decoder.output."),
)


def read_published_weights(path: str | Path) -> NamedArrays:
    """Read the weights of the published network (Bakhtiari et al. 2025), under the names of ``PRESETS["scarches"]``.

    Parameters
    ----------
    path
        A ``state_dict`` of scArches' scGen, as ``torch.save`` wrote it: ``model_params.pt`` of a saved model. Nothing
        in it is executed.

    Returns
    -------
    Arrays by name in float32, without BatchNorm's counters. A name that scArches doesn't have stays as it is.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    CheckpointError
        It holds anything but named tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {_rename(name): t.float().numpy() for name, t in state.items() if not name.endswith(_COUNTER)}
    except OSError:
        raise
    except Exception as error:  # torch has no error of its own for a file that it can't read
        raise CheckpointError(f"{path} holds no named tensors, or a damaged file: {error}") from error


def _rename(name: str) -> str:
    for published, rename in _LAYERS:
        if re.match(published, name):
            return re.sub(published, rename, name, count=1)
    return name
