"""A model as a folder of JSON and plain arrays: nothing in it is executed when it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedscgen import __version__
from fedscgen._data import DataKeys
from fedscgen._entries import Table, choice, flag, maybe, names, number, table, text, whole
from fedscgen._files import create_whole
from fedscgen.correction import read_references
from fedscgen.model._arrays_file import Shapes, check_shapes, read_arrays, read_description
from fedscgen.model._module import FedVAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedscgen._types import NamedArrays, References
    from fedscgen.correction import Landmarks

_FORMAT = "fedscgen model 1"
ARCHITECTURE = "fedscgen"
REMEDY = "choose another folder or set overwrite=True"
_MOST_GENES, _MOST_UNITS = 200_000, 100_000
MODEL, WEIGHTS = "model.json", "weights.npz"


_DESCRIPTION = Table(
    {
        "format": choice(_FORMAT),
        "model": table,
        "setup": Table({}, {field.name: maybe(text(1000)) for field in fields(DataKeys)}),
        "genes": names(_MOST_GENES, 1000),
        "references": maybe(table),
    },
    {"fedscgen": text(), "architecture": text()},
)
_NETWORK = Table(
    {},
    {
        "n_hidden": whole(1, _MOST_UNITS),
        "n_layers": whole(1, _MOST_UNITS),
        "n_latent": whole(1, _MOST_UNITS),
        "dropout_rate": number(0, 1),
        "kl_weight": number(0),
        "normalization": text(),
        "linear_path": flag,
    },
)


class CheckpointError(ValueError):
    """A folder that holds no model of this package, or a damaged one."""


@dataclass(frozen=True)
class SavedModel:
    """What a folder holds of a model.

    Parameters
    ----------
    weights
        By name.
    genes
        The model's genes, in its order.
    references
        Where cells belong; ``None`` if that isn't known.
    model
        Keyword arguments of :class:`FedSCGEN`.
    setup
        Where the data are expected, as :class:`~fedscgen._data.DataKeys` takes them.
    architecture
        Name of the model's kind, as federations know it.
    """

    weights: NamedArrays
    genes: list[str]
    references: References | Landmarks | None
    model: Mapping[str, Any]
    setup: Mapping[str, str | None] = field(default_factory=lambda: DataKeys(batch_key=None).of_saved())
    architecture: str = ARCHITECTURE


def write_model(dir_path: str | Path, saved: SavedModel, overwrite: bool = False) -> None:
    """Write what :meth:`FedSCGEN.load` reads, for those who hold no cells, such as a federation's coordinator.

    Parameters
    ----------
    dir_path
        The folder to make; it appears only when it is complete.
    saved
        The model.
    overwrite
        Replace a folder that exists.

    Raises
    ------
    FileExistsError
        The folder exists and ``overwrite`` is not set.
    """
    with create_whole(Path(dir_path), overwrite=overwrite, remedy=REMEDY) as folder:
        write_files(folder, saved)


def read_model(dir_path: str | Path, prefix: str | None = None) -> SavedModel:
    """Read a model without any cells.

    Parameters
    ----------
    dir_path
        A folder that :meth:`FedSCGEN.save` or :func:`write_model` wrote.
    prefix
        What the names of its files begin with.

    Raises
    ------
    CheckpointError
        The folder holds no model of this package, or a damaged one.
    """
    return _read(Path(dir_path), prefix or "")


def write_files(folder: Path, saved: SavedModel, prefix: str = "") -> None:
    """Write a model's own files into a folder that this makes."""
    folder.mkdir()
    description = {
        "format": _FORMAT,
        "fedscgen": __version__,
        "architecture": saved.architecture,
        "model": dict(saved.model),
        "setup": dict(saved.setup),
        "genes": saved.genes,
        "references": None if saved.references is None else saved.references.to_json(),
    }
    (folder / f"{prefix}{MODEL}").write_text(json.dumps(description, indent=1), encoding="utf-8")
    np.savez(folder / f"{prefix}{WEIGHTS}", **saved.weights)  # type: ignore[arg-type]


def _read(folder: Path, prefix: str) -> SavedModel:
    path = folder / f"{prefix}{MODEL}"
    try:
        description = read_description(path)
        if isinstance(description, dict) and description.get("format") != _FORMAT:
            raise CheckpointError(f"{path} has format {description.get('format')!r:.80}, expected {_FORMAT!r}")
        _DESCRIPTION.check(description, MODEL)
        references = description["references"]
        saved = SavedModel(
            weights={},
            genes=description["genes"],
            references=None if references is None else read_references(references),
            model=description["model"],
            setup=description["setup"],
            architecture=description.get("architecture", ARCHITECTURE),
        )
        return replace(
            saved, weights=read_arrays(folder / f"{prefix}{WEIGHTS}", lambda shapes: _check_weights(shapes, saved))
        )
    except CheckpointError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(error.filename).name
        raise CheckpointError(f"{folder} holds no FedSCGEN model: {missing} is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{folder} holds a damaged or foreign model: {error}") from error


def _check_weights(shapes: Shapes, saved: SavedModel) -> None:
    """Refuse weights that aren't those of the network which the settings describe; of another package's all are."""
    if saved.architecture != ARCHITECTURE:
        return
    _NETWORK.check(saved.model, f"model in {MODEL}")
    if saved.model.get("n_layers", 1) > len(shapes):
        raise ValueError(f"{WEIGHTS} does not fit {MODEL}: fewer arrays than layers")
    with torch.device("meta"):  # which allocates nothing
        state = FedVAE(len(saved.genes), **saved.model).state_dict()
    try:
        check_shapes(shapes, {name: tuple(t.shape) for name, t in state.items() if t.is_floating_point()})
    except ValueError as error:
        raise ValueError(f"{WEIGHTS} does not fit {MODEL}: {error}") from error
