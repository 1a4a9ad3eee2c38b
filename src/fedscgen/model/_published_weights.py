"""Weights of the published network, as scArches' scGen saves them, under the names that they have here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedscgen._message import MOST_ARRAYS
from fedscgen.model._arrays_file import open_archive
from fedscgen.model._model_folder import CheckpointError

if TYPE_CHECKING:
    from fedscgen._types import NamedArrays

_PARTS = {"L": "0", "N": "1"}  # the linear map and the normalization of a hidden block
_MOST_PICKLED = 2**22
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
        size = _check_archive(Path(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(state, size)
        return {_rename(name): t.float().numpy() for name, t in state.items() if not name.endswith(_COUNTER)}
    except OSError:
        raise
    except Exception as error:  # torch has no error of its own for a file that it can't read
        raise CheckpointError(f"{path} holds no named tensors, or a damaged file: {error}") from error


def _check_archive(path: Path) -> int:
    """Refuse a file that would become larger than it is; files of torch before 1.6 are no archives, and refused too."""
    with open_archive(path) as archive:
        pickled = [member.file_size for member in archive.infolist() if member.filename.endswith(".pkl")]
        if sum(pickled) > _MOST_PICKLED:
            raise ValueError(f"{sum(pickled)} bytes describe the tensors: {_MOST_PICKLED} is the most")
    return path.stat().st_size


def _check_tensors(state: Any, size: int) -> None:
    """Refuse what isn't named tensors, or tensors that repeat few numbers to many."""
    if not isinstance(state, Mapping) or len(state) > MOST_ARRAYS:
        raise ValueError(f"it holds {type(state).__name__}, not at most {MOST_ARRAYS} named tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise ValueError(f"{name!r:.80} is no tensor with a name")
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if total > size:
        raise ValueError(f"its tensors would take {total} bytes, and the file has {size}")


def _rename(name: str) -> str:
    for published, rename in _LAYERS:
        if re.match(published, name):
            return re.sub(published, rename, name, count=1)
    return name
