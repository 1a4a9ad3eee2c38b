"""Saving and loading, and models for new data."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import read_h5ad
from mudata import MuData, read_h5mu
from rich.pretty import pprint
from scvi.model._utils import parse_device_args
from scvi.model.base import BaseModelClass
from scvi.model.base._archesmixin import _pad_and_sort_query_anndata

from fedscgen._data import DataKeys
from fedscgen._files import create_whole
from fedscgen._genes import gene_columns
from fedscgen._types import MAX_MISSING_GENES
from fedscgen.model._fill_genes import fill_genes
from fedscgen.model._model_folder import (
    ARCHITECTURE,
    MODEL,
    REMEDY,
    WEIGHTS,
    CheckpointError,
    SavedModel,
    read_model,
    write_files,
)
from fedscgen.model._training_file import TRAINING, restore_training, write_training

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from anndata import AnnData

_ADATA, _MDATA = "adata.h5ad", "mdata.h5mu"


class SaveLoadMixin(BaseModelClass):
    """Saving and loading, in place of scvi-tools' pickled files."""

    keeps_training: bool
    """Whether :meth:`train` has drawn who validates, which is saved then; a site's share of a federation is not."""

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        save_kwargs: Mapping[str, Any] | None = None,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Write settings, genes and references (``model.json``) and weights (``weights.npz``) into a folder.

        No cell, label or batch of this site is in it, unless ``save_anndata`` is set. After :meth:`train`, losses and
        which cells have validated are in ``training.npz``, by the order of their names, and so is their number: delete
        that file before others get the folder. The folder appears only when it is complete.

        Parameters
        ----------
        dir_path
            The folder to make.
        prefix
            What the names of the files begin with. Files that begin otherwise stay in a folder that is replaced.
        overwrite
            Replace a folder that exists.
        save_anndata
            Add the registered data.
        save_kwargs
            Must be empty: nothing is written with :func:`torch.save`.
        **anndata_write_kwargs
            Passed on when the data are written.

        Raises
        ------
        FileExistsError
            The folder exists and ``overwrite`` is not set.
        ValueError
            ``prefix`` is no beginning of a file's name, or ``save_kwargs`` are given.
        """
        if save_kwargs:
            raise ValueError("save_kwargs have no effect: weights are saved as plain arrays, not with torch.save")
        if prefix is not None and (Path(prefix).name != prefix or prefix.startswith(".")):
            raise ValueError(f"prefix={prefix!r}: names of files can't begin so; choose letters, digits, - or _")
        path = Path(dir_path)
        with create_whole(path, overwrite=overwrite, remedy=REMEDY) as folder:
            write_files(folder, self._to_saved(), prefix or "")
            if self.keeps_training:
                write_training(folder / f"{prefix or ''}{TRAINING}", self)
            if save_anndata:
                name = _MDATA if isinstance(self.adata, MuData) else _ADATA
                self.adata.write(folder / f"{prefix or ''}{name}", **anndata_write_kwargs)
            if prefix:
                _keep_others(path, folder, prefix)

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | MuData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
        **keys: Any,
    ) -> Self:
        """Load a model for a site's own data, which may be new to it.

        With the cells of its training, in any order, it goes on with its losses and validates on the same cells.

        Parameters
        ----------
        dir_path
            A folder that :meth:`save` wrote.
        adata
            Data with the model's genes, in any order; as scvi-tools does, this registers them. If there are further
            genes, or it is a view, the model gets a copy. The saved data if ``None``.
        accelerator, device
            Where the network lives, as with every scvi-tools model.
        prefix
            What the names of the model's files begin with.
        max_missing_genes
            Share of the model's genes that ``adata`` may lack. The model then gets a copy of expression, ``obs`` and
            ``obsm``, in which they are zero.
        **keys
            ``batch_key``, which may be a list, ``labels_key``, ``layer`` or ``unlabeled_category``, where these data
            have them under other names than the model was set up with.

        Raises
        ------
        CheckpointError
            The folder holds no model of this package, or a damaged one.
        KeyError, ValueError
            A key or genes are missing, or no data was given or saved.
        """
        folder = Path(dir_path)
        _check_keys(keys)
        saved = read_model(folder, prefix)
        if saved.architecture != ARCHITECTURE:
            raise CheckpointError(
                f"{folder} holds a model of the architecture {saved.architecture!r}, which FedSCGEN can't load"
            )
        adata = _read_data(folder, prefix or "") if adata is None else adata
        weights = folder / f"{prefix or ''}{WEIGHTS}"
        model = cls._of_saved(saved, adata, keys, accelerator, device, max_missing_genes, weights)
        restore_training(folder / f"{prefix or ''}{TRAINING}", model)
        return model

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | MuData,
        reference_model: str | Path | Self,
        accelerator: str = "auto",
        device: int | str = "auto",
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
        **keys: str | None,
    ) -> Self:
        """Give a model for new data, which corrects them as it is: nothing has to be trained or frozen.

        Parameters
        ----------
        adata
            New data, as :meth:`load` takes them.
        reference_model
            A model that knows where cells belong, or the folder of one.
        accelerator, device, max_missing_genes, **keys
            As in :meth:`load`.

        Returns
        -------
        A model of its own, with the reference model's weights and references.

        Raises
        ------
        CheckpointError, KeyError, TypeError, ValueError
            As in :meth:`load`.
        """
        if not isinstance(reference_model, SaveLoadMixin):
            options = {"max_missing_genes": max_missing_genes, **keys}
            return cls.load(reference_model, adata, accelerator, device, **options)  # type: ignore[arg-type]
        _check_keys(keys)
        saved = reference_model._to_saved()
        return cls._of_saved(saved, adata, keys, accelerator, device, max_missing_genes, "the reference model")

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData,
        reference_model: str | Path | SaveLoadMixin,
        return_reference_var_names: bool = False,
        inplace: bool = True,
    ) -> AnnData | pd.Index | None:
        """Bring new data to a model's genes, in its order: what is missing becomes zero, as in scvi-tools.

        Zeros say that a gene isn't expressed, where it wasn't measured: scvi-tools warns if a fifth is missing.

        Parameters
        ----------
        adata
            New data.
        reference_model
            A model, or the folder of one.
        return_reference_var_names
            Give the model's genes instead.
        inplace
            Change ``adata`` itself.

        Returns
        -------
        The genes, or a new AnnData unless it is ``inplace``.

        Raises
        ------
        CheckpointError
            As in :meth:`load`.
        ValueError
            The data have none of the model's genes.
        """
        model = reference_model
        genes = pd.Index((model._to_saved() if isinstance(model, SaveLoadMixin) else read_model(model)).genes)
        if return_reference_var_names:
            return genes
        return _pad_and_sort_query_anndata(adata if inplace else adata.copy(), genes, inplace)

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """Read what a saved model was set up with, in place of scvi-tools' registry.

        Parameters
        ----------
        dir_path, prefix
            As :meth:`load` takes them.

        Returns
        -------
        ``"model_name"``, ``"setup_method_name"``, ``"setup_args"`` and the genes as ``"var_names"``. Cells, batches and
        labels are not saved.

        Raises
        ------
        CheckpointError
            As in :meth:`load`.
        """
        saved = read_model(dir_path, prefix)
        return {
            "model_name": "FedSCGEN",
            "setup_method_name": "setup_mudata" if saved.setup.get("modality") else "setup_anndata",
            "setup_args": dict(saved.setup),
            "var_names": list(saved.genes),
        }

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None) -> None:
        """Print what a saved model was set up with.

        Parameters
        ----------
        dir_path, prefix
            As :meth:`load` takes them.
        """
        pprint(SaveLoadMixin.load_registry(dir_path, prefix)["setup_args"])

    @classmethod
    def _of_saved(
        cls,
        saved: SavedModel,
        adata: AnnData | MuData,
        keys: dict[str, str | None],
        accelerator: str,
        device: int | str,
        max_missing: float,
        whose: object,
    ) -> Self:
        """Set up data and give them a model; ``whose`` weights a message is about."""
        _, _, place = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)
        adata = fill_genes(adata, setup := DataKeys(**{**saved.setup, **keys}), saved.genes, max_missing)
        model = cls(cls._set_up(adata, setup, saved.genes), **saved.model)
        try:
            model.load_weights(saved.weights)
        except ValueError as error:
            raise CheckpointError(f"{whose} does not fit {MODEL}: {error}") from error
        model.references = saved.references
        model.to_device(place)
        return model

    @classmethod
    def _set_up(cls, adata: AnnData | MuData, keys: DataKeys, genes: list[str]) -> AnnData | MuData:
        """Register the data, or a copy of it with just the model's genes in their order."""
        rna = keys.modality_of(adata)
        columns = gene_columns(rna.var_names, genes)
        if not isinstance(adata, MuData):
            adata = adata if columns is None and not adata.is_view else adata[:, genes].copy()
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


def _check_keys(keys: Mapping[str, object]) -> None:
    """Refuse arguments that scvi-tools' models take and this one can't honour, as well as misspelt ones."""
    known = [key.name for key in fields(DataKeys)]
    for name in keys:
        if name not in known:
            raise TypeError(f"there is no argument {name!r} here that has an effect; there are {', '.join(known)}")


def _keep_others(folder: Path, new: Path, prefix: str) -> None:
    """Copy what another prefix has in the folder that is replaced."""
    others = folder.iterdir() if folder.is_dir() else ()
    for path in others:
        if path.is_file() and not path.name.startswith(prefix):
            shutil.copy2(path, new / path.name)


def _read_data(folder: Path, prefix: str) -> AnnData | MuData:
    if (folder / f"{prefix}{_MDATA}").exists():
        return read_h5mu(folder / f"{prefix}{_MDATA}")
    if (folder / f"{prefix}{_ADATA}").exists():
        return read_h5ad(folder / f"{prefix}{_ADATA}")
    raise ValueError(f"{folder} holds no data: pass the site's own as load(dir_path, adata)")
