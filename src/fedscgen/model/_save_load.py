"""A model as a folder of JSON and plain arrays: nothing in it is executed when it is read."""

from __future__ import annotations

import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import read_h5ad
from mudata import MuData, read_h5mu
from scvi.model.base import BaseModelClass

from fedscgen._files import replacing
from fedscgen._types import References
from fedscgen.model._data import DataKeys, gene_columns

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData

    from fedscgen._types import NamedArrays

_FORMAT = "fedscgen model 1"
_MODEL, _WEIGHTS, _ADATA, _MDATA = "model.json", "weights.npz", "adata.h5ad", "mdata.h5mu"


class CheckpointError(ValueError):
    """A folder that holds no model of this package, or a damaged one."""


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
        remedy = "choose another folder or set overwrite=True"
        with replacing(Path(dir_path), overwrite=overwrite, remedy=remedy) as folder:
            folder.mkdir()
            (folder / _MODEL).write_text(json.dumps(self._description(), indent=1), encoding="utf-8")
            np.savez(folder / _WEIGHTS, **self.get_weights())
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
        description, weights = _read(folder)
        setup = DataKeys(**{**description["setup"], **keys})
        adata = cls._set_up(_saved_data(folder) if adata is None else adata, setup, description["genes"])
        model = cls(adata, **description["model"])
        try:
            model.load_weights(weights)
        except ValueError as error:
            raise CheckpointError(f"{folder / _WEIGHTS} does not fit {_MODEL}: {error}") from error
        if description["references"] is not None:
            model.references = References.from_json(description["references"])
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

    def _description(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "fedscgen": version("fedscgen"),
            "model": self.init_params_["non_kwargs"],
            "setup": {
                name: value
                for name, value in vars(self.keys).items()
                if name not in ("modality", "unlabeled_category") or value is not None
            },
            "genes": self.genes,
            "references": None if self.references is None else self.references.to_json(),
        }


def _read(folder: Path) -> tuple[dict[str, Any], NamedArrays]:
    try:
        description = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
        if description.get("format") != _FORMAT:
            raise CheckpointError(f"{folder / _MODEL} has format {description.get('format')!r}, expected {_FORMAT!r}")
        parts = {name: description[name] for name in ("model", "setup", "genes", "references")}
        with (folder / _WEIGHTS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return parts, {name: arrays[name] for name in arrays.files}
    except CheckpointError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(error.filename).name
        raise CheckpointError(f"{folder} holds no FedSCGEN model: {missing} is missing") from error
    except (AttributeError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{folder} holds a damaged or foreign model: {error}") from error


def _saved_data(folder: Path) -> AnnData | MuData:
    if (folder / _MDATA).exists():
        return read_h5mu(folder / _MDATA)
    if (folder / _ADATA).exists():
        return read_h5ad(folder / _ADATA)
    raise ValueError(f"{folder} holds no data: pass the site's own as load(dir_path, adata)")
