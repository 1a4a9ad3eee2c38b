"""What a site computes for the sums of a run: from a task to the arrays that it adds, and their weight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.aggregation import clip_change, policy_of_result, site_weight, to_summable
from fedscgen.federation._models import find_model
from fedscgen.federation._program import has_jumped
from fedscgen.federation._protocol import (
    BEGIN,
    HOLDERS,
    LANDMARKS,
    REFERENCES,
    TRAIN,
    VALIDATE,
    VALIDATION_LOSS,
    VARIABLE_GENES,
)
from fedscgen.federation._site_cells import silence_repeated_warnings
from fedscgen.federation._variable_genes import measure_variability

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedscgen._types import NamedArrays
    from fedscgen.aggregation import BatchNormPolicy
    from fedscgen.correction import LandmarkSums
    from fedscgen.federation._models import FederatedModel
    from fedscgen.federation._program import Task
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.federation._site_cells import SiteCells

_WORST_LOSS = 1e6  # that can be summed


class SiteTasks:
    """Performs tasks with a site's model and cells.

    Parameters
    ----------
    cells
        The site's.
    settings
        What all sites do alike.
    max_update_norm
        See :class:`SiteOptions`.
    accelerator
        Where to train, as Lightning names it.
    history
        To which a row is added for every epoch; see :class:`Client`.

    Attributes
    ----------
    model
        The site's, once it is made.
    """

    def __init__(
        self,
        cells: SiteCells,
        settings: FederationSettings,
        max_update_norm: float | None,
        accelerator: str,
        history: list[dict[str, Any]],
    ) -> None:
        self.model: FederatedModel | None = None
        self._cells = cells
        self._settings = settings
        self._max_update_norm = max_update_norm
        self._accelerator = accelerator
        self._history = history
        self._best_loss = np.inf
        self._landmark_sums: LandmarkSums | None = None

    def make_model(self, genes: Sequence[str], *, pad: bool) -> None:
        """Make the site's model, of these genes; with ``pad``, those that the site lacks are zeros."""
        model_class, keys = find_model(self._settings.architecture), self._cells.keys
        working = self._cells.copy_genes(genes, pad=pad)
        with silence_repeated_warnings():
            model_class.setup_anndata(working, **keys.of_anndata())
            self.model = model_class(working, **self._settings.model)

    def choose_cells(self) -> None:
        """Choose those that the model is trained on."""
        self._model.n_training_cells()

    def perform(self, task: Task) -> tuple[NamedArrays, float]:
        """The site's arrays, and their weight."""
        kinds: dict[str, Callable[[Task], tuple[NamedArrays, float]]] = {
            VARIABLE_GENES: self._measure_variability,
            BEGIN: self._summarize,
            TRAIN: self._train,
            VALIDATE: self._validate,
            HOLDERS: self._count_held,
            REFERENCES: self._sum_means,
            LANDMARKS: self._sum_near_landmarks,
        }
        return kinds[task.kind](task)

    def load_result(self, weights: NamedArrays) -> FederatedModel:
        """The model with the weights that training has ended with."""
        return self._load(weights, policy_of_result(self._settings.batchnorm))

    def _measure_variability(self, task: Task) -> tuple[NamedArrays, float]:
        cells = self._cells.copy_genes(task.genes, pad=self._settings.genes == "union")
        expression, n_top = self._cells.keys.expression_of(cells), self._settings.n_top_genes
        return measure_variability(expression, task.genes, n_top or len(task.genes)), 1.0

    def _summarize(self, task: Task) -> tuple[NamedArrays, float]:
        return self._model.summarize(task.arrays), self._weigh(self._model.n_training_cells())

    def _train(self, task: Task) -> tuple[NamedArrays, float]:
        """Train from the federation's weights; their loss at this site is sent along."""
        began, settings, round_ = time.perf_counter(), self._settings, task.round or 1
        model = self._load(task.arrays, settings.batchnorm)
        loss = model.get_validation_loss(batch_size=settings.batch_size)
        if np.isfinite(self._best_loss) and has_jumped(
            loss, self._best_loss
        ):  # training from spoilt weights could fail: that is for all to see
            worst = np.asarray(min(loss, _WORST_LOSS) if np.isfinite(loss) else _WORST_LOSS)
            summable = to_summable(task.arrays, settings.batchnorm)
            return {**summable, VALIDATION_LOSS: worst}, self._weigh(model.n_training_cells())
        self._best_loss = min(loss, self._best_loss)
        update = model.train_local(
            settings.n_epochs,
            lr=settings.lr * settings.lr_decay ** (round_ - 1),
            batch_size=settings.batch_size,
            fixed_batches=settings.fixed_batches,
            early_stopping=settings.restore_best_epoch,
            proximal_weight=settings.proximal_weight,
            accelerator=self._accelerator,
        )
        self._note_epochs(round_, time.perf_counter() - began)
        weights = clip_change(task.arrays, update.weights, self._max_update_norm)
        arrays = {**to_summable(weights, settings.batchnorm), VALIDATION_LOSS: np.asarray(loss)}
        return arrays, self._weigh(update.n_cells)

    def _validate(self, task: Task) -> tuple[NamedArrays, float]:
        model = self._load(task.arrays, self._settings.batchnorm)
        loss = model.get_validation_loss(batch_size=self._settings.batch_size)
        return {VALIDATION_LOSS: np.asarray(loss)}, self._weigh(model.n_training_cells())

    def _count_held(self, task: Task) -> tuple[NamedArrays, float]:
        reported = set(self._cells.describe(self._settings).labels)
        return {"holders": np.array([float(label in reported) for label in task.labels])}, 1.0

    def _sum_means(self, task: Task) -> tuple[NamedArrays, float]:
        latent = self.load_result(task.arrays).get_latent_representation()
        return self._cells.sum_means(latent, task.labels, self._settings.reference), 1.0

    def _sum_near_landmarks(self, task: Task) -> tuple[NamedArrays, float]:
        """Sums over this site's cells, which the first question encodes."""
        if task.question is None:
            raise ValueError("a task of landmarks comes with a question")
        if self._landmark_sums is None:
            latent = self.load_result(task.arrays).get_latent_representation()
            self._landmark_sums = self._cells.begin_landmarks(latent, task.labels)
        return self._landmark_sums.answer(task.question), 1.0

    def _weigh(self, n_cells: int) -> float:
        return site_weight(n_cells, self._settings.strategy)

    @property
    def _model(self) -> FederatedModel:
        if self.model is None:
            raise ValueError("the site has no model yet: its genes aren't chosen")
        return self.model

    def _load(self, weights: NamedArrays, policy: BatchNormPolicy) -> FederatedModel:
        self._model.load_weights(weights, policy)
        return self._model

    def _note_epochs(self, round_: int, seconds: float) -> None:
        history, known = self._model.history, self._history
        losses = {name: history[name].iloc[:, 0] for name in ("train_loss", VALIDATION_LOSS) if name in history}
        n_new = max(map(len, losses.values()), default=len(known) + 1) - len(known)
        for epoch in range(n_new):
            values = {name: float(column.iloc[epoch - n_new]) for name, column in losses.items()}
            known.append({"round": round_, "epoch": epoch + 1, **values, "seconds": seconds / n_new})
