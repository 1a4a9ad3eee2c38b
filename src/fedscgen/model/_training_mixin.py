"""Training at one site, alone or as its share of a federation's round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.model.base import UnsupervisedTrainingMixin

from fedscgen import aggregation
from fedscgen._rows import chunks_of, dense_chunks
from fedscgen._types import ClientUpdate
from fedscgen.model._module import FedVAE
from fedscgen.model._training import (
    BatchSplitter,
    FedSCGENTrainingPlan,
    choose_callbacks,
    keep_interrupted,
    quiet_lightning,
)
from fedscgen.model._training_arguments import (
    MONITOR,
    Split,
    check_arguments,
    check_batch_size,
    check_validated,
    draw_split,
    drops_last,
    read_split,
)
from fedscgen.model._weights_mixin import WeightsMixin
from fedscgen.principal_components import BASIS, find_principal_components, second_moments, seek_principal_components

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from fedscgen._types import NamedArrays


class TrainingMixin(UnsupervisedTrainingMixin, WeightsMixin):
    """Training, and where it begins."""

    _training_plan_cls = FedSCGENTrainingPlan
    _data_splitter_cls = BatchSplitter
    keeps_training = False
    _drawn_split: tuple[tuple[float, float | None, bool], Split] | None = None

    def train(
        self,
        max_epochs: int | None = 100,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        batch_size: int = 50,
        early_stopping: bool | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        *,
        lr: float = 1e-3,
        early_stopping_patience: int = 20,
        reduce_lr_on_plateau: bool | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on all registered cells at once: centralized scGen.

        A network with a linear path begins at these cells' principal components. Where cells belong is then kept in
        :attr:`references`, by which new batches are corrected. Interrupted (Ctrl-C), it keeps its best epoch's weights.

        Parameters
        ----------
        max_epochs
            Passes over the training cells, at most; ``None`` for as many as scvi-tools takes for so many cells.
        accelerator, devices
            Where to train, as with every scvi-tools model.
        train_size
            Share of the cells to train on; 0.9 if ``None``. The split is drawn once a model.
        validation_size
            Share of the cells that validate; by default all that don't train. The others are left alone.
        shuffle_set_split
            ``False`` splits the cells in their order: those that validate, then those that train.
        load_sparse_tensor
            Must be ``False``: mini-batches are made dense.
        batch_size
            Cells in a mini-batch. A last one of one or two cells is left out.
        early_stopping
            Stop when the validation loss hasn't improved for ``early_stopping_patience`` epochs, and restore the best
            epoch of this call; ``None`` does so where there are validation cells.
        datasplitter_kwargs
            Further arguments of scvi-tools' data splitter, such as ``external_indexing``.
        lr
            Learning rate of Adam.
        early_stopping_patience
            Epochs to wait.
        reduce_lr_on_plateau
            Divide the learning rate by 10 when the validation loss hasn't improved for 13 epochs; ``None`` does so
            where every epoch is validated.
        plan_kwargs
            Further arguments of the training plan (:class:`scvi.train.TrainingPlan`). There is no warm-up of the
            divergence's weight unless one is named.
        **trainer_kwargs
            Further arguments of the trainer (:class:`scvi.train.Trainer`), such as ``early_stopping_monitor``.

        Raises
        ------
        ValueError
            There are too few cells, or an argument is out of range or has no effect on this model.
        TypeError
            There is no such argument.
        """
        train_size = 0.9 if train_size is None else train_size
        splitter = dict(datasplitter_kwargs or {})
        plan = {"lr": lr, "reduce_lr_on_plateau": reduce_lr_on_plateau, **(plan_kwargs or {})}
        given = {"load_sparse_tensor": load_sparse_tensor, **trainer_kwargs}
        check_arguments(plan, given, splitter, self._training_plan_cls.own_arguments)
        check_batch_size(batch_size, self.init_params_["non_kwargs"]["normalization"])
        self._split(train_size, validation_size, shuffle_set_split, splitter.pop("external_indexing", None))
        self.keeps_training = True
        self.begin_together([self], train_size=train_size)
        self._fit(
            max_epochs,
            batch_size=batch_size,
            train_size=train_size,
            early_stopping=early_stopping,
            early_stopping_patience=early_stopping_patience,
            plan_kwargs=plan,
            datasplitter_kwargs=splitter,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        self._keep_references()

    def train_local(
        self,
        max_epochs: int = 4,
        *,
        lr: float = 3e-4,
        batch_size: int = 50,
        train_size: float = 0.9,
        fixed_batches: bool = False,
        early_stopping: bool | None = None,
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
            Return the weights of the epoch with the lowest validation loss, instead of the last one's; ``None`` does so
            where there are validation cells.
        proximal_weight
            Half of it times the squared distance from the weights that training began with is added to the loss
            (FedProx: Li et al. 2020).
        lr, batch_size, train_size, plan_kwargs, **trainer_kwargs
            As in :meth:`train`.

        Returns
        -------
        The weights and the number of cells trained on, nothing else.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`train`.
        """
        plan = {"lr": lr, "proximal_weight": proximal_weight, **(plan_kwargs or {})}
        check_arguments(plan, trainer_kwargs, {}, self._training_plan_cls.own_arguments)
        check_batch_size(batch_size, self.init_params_["non_kwargs"]["normalization"])
        self._fit(
            max_epochs,
            batch_size=batch_size,
            train_size=train_size,
            fixed_batches=fixed_batches,
            early_stopping=early_stopping,
            plan_kwargs=plan,
            **{"enable_progress_bar": False, **trainer_kwargs},
        )
        del self.trainer  # it would keep the optimizer's state, twice the weights, until the next round
        return ClientUpdate(self.get_weights(), len(self.train_indices))

    def _fit(
        self,
        max_epochs: int | None,
        *,
        batch_size: int,
        train_size: float,
        early_stopping: bool | None,
        plan_kwargs: dict[str, Any],
        fixed_batches: bool = False,
        callbacks: Sequence[Any] = (),
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        split = self._split(train_size)
        validates = len(split.validation) > 0
        reduces = plan_kwargs.get("reduce_lr_on_plateau", False)
        if not validates:
            wishes = {"early_stopping": early_stopping, "reduce_lr_on_plateau": reduces}
            check_validated({**wishes, "check_val_every_n_epoch": kwargs.get("check_val_every_n_epoch")}, train_size)
        follows = validates and kwargs.get("check_val_every_n_epoch") in (None, 1)
        # scvi-tools appends to a trained model's history, which weights from elsewhere don't come with
        self.is_trained_ = bool(self.history_)
        stopping = validates if early_stopping is None else early_stopping
        monitored = {"early_stopping_monitor": MONITOR, "early_stopping_mode": "min", **kwargs}
        own = choose_callbacks(monitored, stops=stopping, logs=kwargs.get("logger") is not False)
        self.module.train()  # Lightning keeps the mode that it finds
        self.references = None  # which belong to the weights before
        with quiet_lightning(), keep_interrupted(self):
            super().train(
                max_epochs,
                batch_size=batch_size,
                early_stopping=stopping,
                callbacks=[*callbacks, *own],
                datasplitter_kwargs={
                    **(datasplitter_kwargs or {}),
                    "external_indexing": list(split),
                    "drop_last": drops_last(split, batch_size, fixed_batches, datasplitter_kwargs or {}),
                    "fixed_batches": fixed_batches,
                    "data_and_attributes": [REGISTRY_KEYS.X_KEY],
                },
                plan_kwargs={**plan_kwargs, "reduce_lr_on_plateau": follows if reduces is None else reduces},
                **{"check_val_every_n_epoch": 1 if validates else None, **monitored},
            )

    def _split(
        self,
        train_size: float,
        validation_size: float | None = None,
        shuffle: bool | None = None,
        external: Sequence[Any] | None = None,
    ) -> Split:
        """Who trains and who validates: the same in every call, so that no cell validates what it has trained."""
        if external is not None:
            split = read_split(external, self.adata.n_obs)
            self._drawn_split = (train_size, validation_size, True), split
            return split
        if self._drawn_split is not None:
            (of_train, of_validation, was_shuffled), split = self._drawn_split
            if of_train == train_size and validation_size in (None, of_validation) and shuffle in (None, was_shuffled):
                return split
        shuffle = True if shuffle is None else shuffle
        split = draw_split(self.adata.n_obs, train_size, validation_size, shuffle)
        self._drawn_split = (train_size, validation_size, shuffle), split
        return split

    def get_validation_loss(self, *, batch_size: int = 50, train_size: float = 0.9) -> float:
        """Loss on the validation cells, as the training monitors it; NaN if ``train_size`` leaves none.

        Parameters
        ----------
        batch_size, train_size
            As in :meth:`train`.
        """
        validation = self._split(train_size).validation
        matrix = self.keys.expression_of(self.adata)
        total = 0.0
        self.module.eval()
        with torch.inference_mode():
            for _, chunk in dense_chunks(matrix, None, batch_size, np.sort(validation)):
                _, _, loss = self.module({REGISTRY_KEYS.X_KEY: torch.from_numpy(chunk).to(self.device)})
                total += float(loss.loss) * len(chunk)
        return total / len(validation) if len(validation) else float("nan")

    def n_training_cells(self, train_size: float = 0.9) -> int:
        """Cells that this site trains on."""
        return len(self._split(train_size).train)

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
        matrix, rows = self.keys.expression_of(self.adata), np.sort(self._split(train_size).train)
        return second_moments(chunks_of(matrix, rows, chunk_size), basis)

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
