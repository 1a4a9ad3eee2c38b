"""A model as a folder of JSON and plain arrays: nothing in it is executed when it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import read_h5ad
from mudata import MuData, read_h5mu
from scvi.model.base import BaseModelClass

from fedscgen._data import DataKeys, gene_columns
from fedscgen._entries import Table, choice, flag, maybe, names, number, table, text, whole
from fedscgen._files import create_whole
from fedscgen.correction import read_references
from fedscgen.model._arrays_file import Shapes, check_shapes, read_arrays, read_description
from fedscgen.model._module import FedVAE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from anndata import AnnData

    from fedscgen._types import NamedArrays, References
    from fedscgen.correction import Landmarks

_FORMAT = "fedscgen model 1"
ARCHITECTURE = "fedscgen"
_REMEDY = "choose another folder or set overwrite=True"
_MOST_GENES, _MOST_UNITS = 200_000, 100_000
_MODEL, _WEIGHTS, _ADATA, _MDATA = "model.json", "weights.npz", "adata.h5ad", "mdata.h5mu"


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
    with create_whole(Path(dir_path), overwrite=overwrite, remedy=_REMEDY) as folder:
        _write(folder, saved)


def read_model(dir_path: str | Path) -> SavedModel:
    """Read a model without any cells.

    Parameters
    ----------
    dir_path
        A folder that :meth:`FedSCGEN.save` or :func:`write_model` wrote.

    Raises
    ------
    CheckpointError
        The folder holds no model of this package, or a damaged one.
    """
    return _read(Path(dir_path))


class SaveLoadMixin(BaseModelClass):
    """Saving and loading, in place of scvi-tools' pickled files."""

    def save(self, dir_path: str | Path, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Write settings, genes and references (``model.json``) and weights (``weights.npz``) into a folder.

        No cell, label or batch of this site is in it, unless ``save_anndata`` is set. The folder appears only when it
        is complete.

        Parameters
        ----------
        dir_path
            The folder to make.
        overwrite
            Replace a folder that exists.
        save_anndata
            Add the registered data.

        Raises
        ------
        FileExistsError
            The folder exists and ``overwrite`` is not set.
        """
        with create_whole(Path(dir_path), overwrite=overwrite, remedy=_REMEDY) as folder:
            _write(folder, self._to_saved())
            if save_anndata:
                self.adata.write(folder / (_MDATA if isinstance(self.adata, MuData) else _ADATA))

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData | MuData | None = None, **keys: str | None) -> Self:
        """Load a model for a site's own data, which may be new to it.

        Parameters
        ----------
        dir_path
            A folder that :meth:`save` wrote.
        adata
            Data with the model's genes, in any order; as scvi-tools does, this registers them. If there are further
            genes, the model gets a copy without them. The saved data if ``None``.
        **keys
            ``batch_key``, ``labels_key``, ``layer`` or ``unlabeled_category``, where these data have them under other
            names than the model was set up with.

        Raises
        ------
        CheckpointError
            The folder holds no model of this package, or a damaged one.
        KeyError, ValueError
            A key or genes are missing, or no data was given or saved.
        """
        folder = Path(dir_path)
        saved = read_model(folder)
        if saved.architecture != ARCHITECTURE:
            raise CheckpointError(
                f"{folder} holds a model of the architecture {saved.architecture!r}, which FedSCGEN can't load"
            )
        setup = DataKeys(**{**saved.setup, **keys})
        adata = cls._set_up(_read_data(folder) if adata is None else adata, setup, saved.genes)
        model = cls(adata, **saved.model)
        try:
            model.load_weights(saved.weights)
        except ValueError as error:
            raise CheckpointError(f"{folder / _WEIGHTS} does not fit {_MODEL}: {error}") from error
        model.references = saved.references
        return model

    @classmethod
    def _set_up(cls, adata: AnnData | MuData, keys: DataKeys, genes: list[str]) -> AnnData | MuData:
        """Register the data, or a copy of it with just the model's genes in their order."""
        rna = keys.modality_of(adata)
        columns = gene_columns(rna.var_names, genes)
        if not isinstance(adata, MuData):
            adata = adata if columns is None else adata[:, columns].copy()
            cls.setup_anndata(adata, **keys.of_anndata())
            return adata
        if columns is not None:
            obs = adata.obs
            adata = MuData({keys.modality: rna[:, columns].copy()})
            adata.obs = obs
        cls.setup_mudata(adata, **vars(keys))
        return adata

    def _to_saved(self) -> SavedModel:
        return SavedModel(
            weights=self.get_weights(),
            genes=self.genes,
            references=self.references,
            model=self.init_params_["non_kwargs"],
            setup=self.keys.of_saved(),
        )


def _write(folder: Path, saved: SavedModel) -> None:
    folder.mkdir()
    description = {
        "format": _FORMAT,
        "fedscgen": version("fedscgen"),
        "architecture": saved.architecture,
        "model": dict(saved.model),
        "setup": dict(saved.setup),
        "genes": saved.genes,
        "references": None if saved.references is None else saved.references.to_json(),
    }
    (folder / _MODEL).write_text(json.dumps(description, indent=1), encoding="utf-8")
    np.savez(folder / _WEIGHTS, **saved.weights)  # type: ignore[arg-type]


def _read(folder: Path) -> SavedModel:
    try:
        description = read_description(folder / _MODEL)
        if isinstance(description, dict) and description.get("format") != _FORMAT:
            raise CheckpointError(
                f"{folder / _MODEL} has format {description.get('format')!r:.80}, expected {_FORMAT!r}"
            )
        _DESCRIPTION.check(description, _MODEL)
        references = description["references"]
        saved = SavedModel(
            weights={},
            genes=description["genes"],
            references=None if references is None else read_references(references),
            model=description["model"],
            setup=description["setup"],
            architecture=description.get("architecture", ARCHITECTURE),
        )
        return replace(saved, weights=read_arrays(folder / _WEIGHTS, lambda shapes: _check_weights(shapes, saved)))
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
    _NETWORK.check(saved.model, f"model in {_MODEL}")
    if saved.model.get("n_layers", 1) > len(shapes):
        raise ValueError(f"{_WEIGHTS} does not fit {_MODEL}: fewer arrays than layers")
    with torch.device("meta"):  # which allocates nothing
        state = FedVAE(len(saved.genes), **saved.model).state_dict()
    try:
        check_shapes(shapes, {name: tuple(t.shape) for name, t in state.items() if t.is_floating_point()})
    except ValueError as error:
        raise ValueError(f"{_WEIGHTS} does not fit {_MODEL}: {error}") from error


def _read_data(folder: Path) -> AnnData | MuData:
    if (folder / _MDATA).exists():
        return read_h5mu(folder / _MDATA)
    if (folder / _ADATA).exists():
        return read_h5ad(folder / _ADATA)
    raise ValueError(f"{folder} holds no data: pass the site's own as load(dir_path, adata)")
