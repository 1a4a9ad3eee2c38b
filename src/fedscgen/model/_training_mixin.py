"""Training at one site, alone or as its share of a federation's round."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass, UnsupervisedTrainingMixin

from fedscgen import aggregation
from fedscgen._data import chunks_of, dense_chunks
from fedscgen._types import ClientUpdate, NamedArrays
from fedscgen.model._module import FedVAE
from fedscgen.model._training import MONITOR, BatchSplitter, FedSCGENTrainingPlan, RestoreBestEpoch, quiet_lightning
from fedscgen.principal_components import (
    BASIS,
    find_principal_components,
    second_moments,
    seek_principal_components,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from fedscgen.aggregation import BatchNormPolicy, Strategy

_FEWEST_CELLS = 4  # one to validate, the others to train on
_FEWEST_TO_TRAIN = 3  # BatchNorm needs more than one


class TrainingMixin(UnsupervisedTrainingMixin, BaseModelClass):
    """Training, and the weights that come of it by name."""

    _training_plan_cls = FedSCGENTrainingPlan
    _data_splitter_cls = BatchSplitter
    _drawn_split: tuple[float, np.ndarray, np.ndarray] | None = None

    def train(
        self,
        max_epochs: int = 100,
        *,
        lr: float = 1e-3,
        batch_size: int = 50,
        train_size: float = 0.9,
        early_stopping: bool = True,
        early_stopping_patience: int = 20,
        reduce_lr_on_plateau: bool = True,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on all registered cells at once: centralized scGen.

        A network with a linear path begins at these cells' principal components.

        Parameters
        ----------
        max_epochs
            Passes over the training cells, at most.
        lr
            Learning rate of Adam.
        batch_size
            Cells in a mini-batch.
        train_size
            Share of the cells to train on; the others validate. The split is drawn once a model.
        early_stopping
            Stop when the validation loss hasn't improved for ``early_stopping_patience`` epochs, and restore the best
            epoch of this call.
        early_stopping_patience
            Epochs to wait.
        reduce_lr_on_plateau
            Divide the learning rate by 10 when the validation loss hasn't improved for 13 epochs.
        plan_kwargs
            Further arguments of the training plan (:class:`scvi.train.TrainingPlan`).
        **trainer_kwargs
            Further arguments of the trainer (:class:`scvi.train.Trainer`), such as ``accelerator``.

        Raises
        ------
        ValueError
            There are too few cells.
        """
        self.begin_together([self], train_size=train_size)
        self._fit(
            max_epochs,
            batch_size=batch_size,
            train_size=train_size,
            early_stopping=early_stopping,
            early_stopping_patience=early_stopping_patience,
            plan_kwargs={"lr": lr, "reduce_lr_on_plateau": reduce_lr_on_plateau, **(plan_kwargs or {})},
            **trainer_kwargs,
        )

    def train_local(
        self,
        max_epochs: int = 4,
        *,
        lr: float = 3e-4,
        batch_size: int = 50,
        train_size: float = 0.9,
        fixed_batches: bool = False,
        early_stopping: bool = True,
        proximal_weight: float = 0.0,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> ClientUpdate:
        """Train this site's share of one round.

        The optimizer starts afresh, and so does the search for the best epoch: nothing of an earlier round returns.

        Parameters
        ----------
        max_epochs
            Passes over the training cells.
        fixed_batches
            Take the same mini-batches in the same order in every epoch of every call, and leave out the last one if it
            is incomplete and not the only one (Bakhtiari et al. 2025).
        early_stopping
            Return the weights of the epoch with the lowest validation loss, instead of the last one's.
        proximal_weight
            Half of it times the squared distance from the weights that training began with is added to the loss
            (FedProx: Li et al. 2020).
        lr, batch_size, train_size, plan_kwargs, **trainer_kwargs
            As in :meth:`train`.

        Returns
        -------
        The weights and the number of cells trained on, nothing else.
        """
        self._fit(
            max_epochs,
            batch_size=batch_size,
            train_size=train_size,
            fixed_batches=fixed_batches,
            early_stopping=early_stopping,
            plan_kwargs={"lr": lr, "proximal_weight": proximal_weight, **(plan_kwargs or {})},
            **{"enable_progress_bar": False, **trainer_kwargs},
        )
        del self.trainer  # it would keep the optimizer's state, twice the weights, until the next round
        return ClientUpdate(self.get_weights(), len(self.train_indices))

    def _fit(
        self,
        max_epochs: int,
        *,
        batch_size: int,
        train_size: float,
        early_stopping: bool,
        plan_kwargs: dict[str, Any],
        fixed_batches: bool = False,
        callbacks: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        train, validation = self._split(train_size)
        if not len(validation):
            plan_kwargs = {**plan_kwargs, "reduce_lr_on_plateau": False}  # it follows the validation loss
        # scvi-tools appends to a trained model's history, which weights from elsewhere don't come with
        self.is_trained_ = bool(self.history_)
        validating = early_stopping and len(validation) > 0
        self.module.train()  # Lightning keeps the mode that it finds
        with quiet_lightning():
            super().train(
                max_epochs,
                batch_size=batch_size,
                early_stopping=validating,
                early_stopping_monitor=MONITOR,
                check_val_every_n_epoch=1 if len(validation) else None,
                callbacks=[*callbacks, RestoreBestEpoch()] if validating else list(callbacks),
                datasplitter_kwargs={
                    "external_indexing": [train, validation, np.array([], dtype=int)],
                    # a last batch of one cell has no variance to normalise by
                    "drop_last": len(train) > batch_size and (fixed_batches or len(train) % batch_size in (1, 2)),
                    "fixed_batches": fixed_batches,
                    "data_and_attributes": [REGISTRY_KEYS.X_KEY],
                },
                plan_kwargs=plan_kwargs,
                **kwargs,
            )

    def _split(self, train_size: float) -> tuple[np.ndarray, np.ndarray]:
        """Training and validation cells: the same in every call, so that no cell validates what it has trained."""
        if self._drawn_split is not None and self._drawn_split[0] == train_size:
            return self._drawn_split[1:]
        n_cells = self.adata.n_obs
        if n_cells < _FEWEST_CELLS:
            raise ValueError(f"{n_cells} cells are too few to train on: at least {_FEWEST_CELLS} are needed")
        if not 0 < train_size <= 1:
            raise ValueError(f"train_size={train_size}: choose a share above 0 and at most 1")
        n_validation = 0 if train_size == 1 else max(1, n_cells - math.ceil(n_cells * train_size))
        if n_cells - n_validation < _FEWEST_TO_TRAIN:
            raise ValueError(
                f"train_size={train_size} leaves {n_cells - n_validation} of {n_cells} cells to train on: "
                f"choose a share that leaves at least {_FEWEST_TO_TRAIN}"
            )
        validation, train = np.split(torch.randperm(n_cells).numpy(), [n_validation])
        self._drawn_split = train_size, train, validation
        return train, validation

    def get_validation_loss(self, *, batch_size: int = 50, train_size: float = 0.9) -> float:
        """Loss on the validation cells, as the training monitors it; NaN if ``train_size`` leaves none.

        Parameters
        ----------
        batch_size, train_size
            As in :meth:`train`.
        """
        _, validation = self._split(train_size)
        matrix = self.keys.expression_of(self.adata)[np.sort(validation)]
        total = 0.0
        self.module.eval()
        with torch.inference_mode():
            for _, chunk in dense_chunks(matrix, None, batch_size):
                _, _, loss = self.module({REGISTRY_KEYS.X_KEY: torch.from_numpy(chunk).to(self.device)})
                total += float(loss.loss) * len(chunk)
        return total / len(validation) if len(validation) else float("nan")

    def n_training_cells(self, train_size: float = 0.9) -> int:
        """Cells that this site trains on."""
        return len(self._split(train_size)[0])

    def get_second_moments(self, basis: np.ndarray, *, train_size: float = 0.9, chunk_size: int = 4096) -> NamedArrays:
        """Give this site's part in finding all sites' principal components (:mod:`fedscgen.principal_components`).

        Parameters
        ----------
        basis
            Shape ``(n_genes, n_directions)``.
        train_size
            As in :meth:`train`: the training cells take part.
        chunk_size
            Cells that are read at a time; sparse ones stay sparse.

        Returns
        -------
        ``"gene_mean"``, shape ``(n_genes,)``, and ``"gene_product"``, shape ``(n_genes, n_directions)``.
        """
        train, _ = self._split(train_size)
        matrix, rows = self.keys.expression_of(self.adata), np.sort(train)
        return second_moments(chunks_of(matrix, rows, chunk_size), basis)

    @classmethod
    def initial_weights(cls, n_genes: int, seed: int, **network: Any) -> NamedArrays:
        """The weights that a model of ``n_genes`` genes has right after its construction under ``seed``.

        ``network`` are keyword arguments of :class:`FedSCGEN`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FedVAE(n_genes, **network).weights()

    @classmethod
    def begin(cls, weights: NamedArrays) -> Generator[NamedArrays, NamedArrays, NamedArrays]:
        """Find the weights that a federation's training begins with: at all sites' principal components.

        It asks for the weighted mean, over the sites, of what their :meth:`summarize` answers.

        Parameters
        ----------
        weights
            As :meth:`initial_weights` gives them. Without a linear path, they are what training begins with.
        """
        axes = FedVAE.axes_of(weights)
        if axes is None:
            return weights
        n_latent, n_genes = axes.shape
        components = yield from seek_principal_components(n_genes, n_latent)
        return FedVAE.begin_at(components, weights)

    def summarize(self, question: Mapping[str, np.ndarray]) -> NamedArrays:
        """Give this site's part in :meth:`begin`: second moments of its training cells along the asked ``"basis"``."""
        return self.get_second_moments(question[BASIS])

    @staticmethod
    def begin_together(models: Sequence[TrainingMixin], *, train_size: float = 0.9) -> None:
        """Let models begin at the principal components of all their cells, each weighted by its training cells.

        For sites that share a process. Nothing happens to models without a linear path, or that have begun.

        Parameters
        ----------
        models
            One per site, with the same genes and network.
        train_size
            As in :meth:`train`.
        """
        linear_path = models[0].module.linear_path
        if linear_path is None or linear_path.axes.any():
            return
        shares = [model.n_training_cells(train_size) for model in models]

        def mean_over_sites(basis: np.ndarray) -> NamedArrays:
            moments = [model.get_second_moments(basis, train_size=train_size) for model in models]
            summed = aggregation.weighted_sum(zip(moments, shares, strict=True))
            return {name: array / sum(shares) for name, array in summed.items()}

        n_latent, n_genes = linear_path.axes.shape
        components = find_principal_components(mean_over_sites, n_genes, n_latent)
        for model in models:
            weights = FedVAE.begin_at(components, model.get_weights())
            model.module.load_state_dict({name: torch.tensor(w) for name, w in weights.items()}, strict=False)

    def get_weights(self) -> NamedArrays:
        """Copies of all parameters and BatchNorm statistics by name, in float32; integer counters stay here."""
        return {name: array.copy() for name, array in self.module.weights().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray], batchnorm: BatchNormPolicy = "pooled") -> None:
        """Load weights by name, such as :meth:`aggregate` returns.

        Parameters
        ----------
        weights
            Arrays with this model's names and shapes.
        batchnorm
            ``"pooled"`` takes all of them; ``"local"`` and ``"averaged"`` keep this model's own BatchNorm statistics,
            once it has any.

        Raises
        ------
        ValueError
            Names or shapes don't fit, or a value is NaN or inf.
        """
        own = self.module.weights()
        aggregation.check_update(weights, own, who="these weights")
        chosen = aggregation.weights_for_site(weights, own, batchnorm if self.is_trained_ else "pooled")
        self.module.load_state_dict({name: torch.tensor(array) for name, array in chosen.items()}, strict=False)
        self.module.eval()
        self.is_trained_ = True

    def close(self) -> None:
        """Free the registered cells, which scvi-tools would keep for good."""
        self.deregister_manager(self.adata)

    @staticmethod
    def aggregate(updates: Sequence[ClientUpdate], strategy: Strategy = "weighted_fedavg") -> NamedArrays:
        """Average the sites' updates in the clear; see :func:`fedscgen.aggregation.aggregate`."""
        return aggregation.aggregate(updates, strategy)
