"""The model seam: all that a federation asks of the model that it trains. FedSCGEN is the default."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedscgen._registry import Registry
from fedscgen._types import ClientUpdate, NamedArrays, References
from fedscgen.model import FedSCGEN

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from fedscgen.aggregation import BatchNormPolicy
    from fedscgen.correction import Landmarks


class FederatedModel(Protocol):
    """A model of one site, as :class:`Client`, :class:`Server` and :func:`simulate` use it.

    ``__init__`` takes the site's AnnData, which :meth:`setup_anndata` has registered, and the model's own settings as
    keyword-only arguments. A class that inherits from this one has :meth:`begin`, :meth:`summarize`, :attr:`history`
    and :meth:`close` already: nothing is summed before training, no losses are kept, and nothing has to be freed.
    """

    references: References | Landmarks | None
    """Where cells belong; the client sets it before it corrects."""

    @classmethod
    @abstractmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None,
        labels_key: str | None,
        layer: str | None,
        unlabeled_category: str | None,
    ) -> None:
        """Register the AnnData, which belongs to the model from now on."""
        ...

    @classmethod
    @abstractmethod
    def initial_weights(cls, n_genes: int, seed: int, **model: Any) -> NamedArrays:
        """The weights that a model of ``n_genes`` genes has right after its construction under ``seed``."""
        ...

    @classmethod
    def begin(cls, weights: NamedArrays) -> Generator[NamedArrays, NamedArrays, NamedArrays]:
        """Find the weights that training begins with; a generator, which coordinator and sites all go through.

        To find them, it may yield named arrays any number of times: each site's :meth:`summarize` answers them, and the
        weighted mean over the sites is sent back. Given the same means, it must ask the same.

        Parameters
        ----------
        weights
            As :meth:`initial_weights` gives them.
        """
        yield from ()
        return weights

    def summarize(self, question: Mapping[str, Any]) -> NamedArrays:
        """The site's answer to what :meth:`begin` asks: floating-point arrays, of which only the mean is opened."""
        raise ValueError("this model is asked for nothing before training")

    @property
    @abstractmethod
    def genes(self) -> list[str]:
        """Names of the genes, in the model's order."""
        ...

    @property
    def history(self) -> Mapping[str, pd.DataFrame]:
        """Loss of each epoch so far, under ``"train_loss"`` and ``"validation_loss"``; empty if none is kept."""
        return {}

    @abstractmethod
    def n_training_cells(self) -> int:
        """Cells that this site trains on: its weight in ``weighted_fedavg``."""
        ...

    @abstractmethod
    def get_weights(self) -> NamedArrays:
        """All floating-point weights by name."""
        ...

    @abstractmethod
    def load_weights(self, weights: Mapping[str, Any], batchnorm: BatchNormPolicy = ...) -> None:
        """Load the federation's weights; refuse with a ``ValueError`` those that don't fit."""
        ...

    @abstractmethod
    def get_validation_loss(self, *, batch_size: int = ...) -> float:
        """Loss of the weights as they are, on cells that are never trained on."""
        ...

    @abstractmethod
    def train_local(
        self,
        max_epochs: int = ...,
        *,
        lr: float = ...,
        batch_size: int = ...,
        fixed_batches: bool = ...,
        early_stopping: bool = ...,
        proximal_weight: float = ...,
        accelerator: str = ...,
    ) -> ClientUpdate:
        """Train for one round from the weights as they are."""
        ...

    @abstractmethod
    def get_latent_representation(self) -> np.ndarray:
        """Latent vectors of the model's cells, shape ``(n_cells, n_latent)``. They stay at the site."""
        ...

    @abstractmethod
    def correct(
        self, adata: AnnData | None = None, *, references: References | Landmarks | None = None, **options: Any
    ) -> AnnData:
        """A copy of the cells, with the corrected latent vectors in ``obsm["X_fedscgen"]``.

        :func:`fedscgen.correction.correct_latent` corrects them by references of either kind.

        Parameters
        ----------
        adata
            Cells to correct, the model's genes among theirs; the model's own if ``None``.
        references
            Where cells belong.
        **options
            The fields of :class:`CorrectionOptions`. A model that decodes writes corrected expression where
            ``expression`` says; one that doesn't ignores it.
        """
        ...

    @abstractmethod
    def save(self, dir_path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model into a folder."""
        ...

    def close(self) -> None:
        """Free what the model holds of the site's cells."""


_models: Registry[type[FederatedModel]] = Registry("architecture")


def register_model(name: str, model: type[FederatedModel], *, overwrite: bool = False) -> None:
    """Let federations train a model of another kind, as ``FederationSettings(architecture=name)``.

    Every site must have registered it, too: by an import, or by an entry point ``fedscgen.plugins`` of the package that
    brings it.

    Parameters
    ----------
    name
        Under which settings name it.
    model
        A class with the methods of :class:`FederatedModel`.
    overwrite
        Replace a model of that name.

    Raises
    ------
    ValueError
        The name is taken, or the class lacks a method; the message names it.
    """
    if not isinstance(model, type):
        raise ValueError(f"model={model!r}: register a class")
    wanted = [name for name in vars(FederatedModel) if not name.startswith("_")]
    missing = [m for m in wanted if not hasattr(model, m) or m in getattr(model, "__abstractmethods__", ())]
    if missing:
        raise ValueError(f"{model.__name__} lacks {', '.join(missing)}: a model has all that FederatedModel lists")
    _check_signatures(model)
    _models.register(name, model, overwrite=overwrite)


def _check_signatures(model: type[FederatedModel]) -> None:
    """Refuse what would fail after training: a correction without options, settings that can't be named."""
    options = inspect.signature(model.correct).parameters.values()
    if not any(option.kind is inspect.Parameter.VAR_KEYWORD or option.name == "denoise" for option in options):
        raise ValueError(f"{model.__name__}.correct takes no options: let it end with **options")
    _, *others = inspect.signature(model).parameters.values()
    loose = [other.name for other in others if other.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if loose:
        raise ValueError(f"{model.__name__}.__init__ takes {loose[0]!r} by position: put * before it")


def find_model(name: str) -> Any:
    """The class that was registered under a name.

    Parameters
    ----------
    name
        As in ``FederationSettings(architecture=name)``.

    Raises
    ------
    ValueError
        There is none; the message lists those there are.
    """
    return _models.find(name)


def find_model_settings(name: str) -> dict[str, Any]:
    """The settings of a model of that name, with their defaults: the keyword-only arguments of its class."""
    parameters = inspect.signature(find_model(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


register_model("fedscgen", FedSCGEN)
