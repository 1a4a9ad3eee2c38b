"""What a federation computes, from one question to the next: the same program at the coordinator and at every site.

It begins with the plan, and is told nothing but the opened sums. What is asked next, with which weights, along which
basis, near which landmarks, follows from these: the coordinator has no question of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message, NamedArrays, References
from fedscgen.aggregation import ServerOptimizer, check_names, check_update, from_sums
from fedscgen.correction import NoMoreSumsError, NoSharedLabelError, Question, seek_landmarks
from fedscgen.federation._models import find_model
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
from fedscgen.federation._variable_genes import choose_variable_genes

if TYPE_CHECKING:
    from collections.abc import Generator

    from fedscgen.correction import Landmarks
    from fedscgen.federation._agreement import SetUp
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.secure import Sums

    Steps = Generator["Task", Sums, None]

logger = logging.getLogger(__name__)

OF_GENES, COMPONENTS, OF_REFERENCES = "genes", "components", "references"
"""Groups of sums, which the cells alone decide: one that is over other sites would show a site's own term."""

_LEAST_SHARE = 0.4  # of an announced size: it has more than half of that, of which it trains on nine in ten
_ROUNDING = 1e-3
_JUMP = 10.0

NO_REFERENCES = References((), np.empty((0, 0)))


@dataclass(frozen=True)
class Task:
    """What every site is asked for next.

    Parameters
    ----------
    kind
        What it is.
    number
        Which of the run's sums it is for, from 1.
    arrays
        The weights or the basis that the answer is computed with.
    group
        See :class:`fedscgen.secure.Contribution`.
    round
        Of training, from 1.
    labels
        Cell types that are asked for.
    genes
        Of which those that vary most are sought.
    question
        While landmarks are sought.
    """

    kind: str
    number: int
    arrays: NamedArrays = field(repr=False)
    group: str | None = None
    round: int | None = None
    labels: tuple[str, ...] = ()
    genes: tuple[str, ...] = field(default=(), repr=False)
    question: Question | None = None

    def to_message(self) -> Message:
        """The request. It holds no question, as each site finds that itself; of the landmarks' it names the step."""
        meta: dict[str, Any] = {"task": self.kind, "number": self.number}
        if self.round is not None:
            meta["round"] = self.round
        if self.question is not None:
            meta["step"] = self.question.step
        return Message(self.kind, meta)


class Program:
    """A run from its first sum to its last.

    Parameters
    ----------
    settings
        The plan's.
    terms
        What the sites have in common.

    Attributes
    ----------
    task
        What is asked next; ``None`` at the end.
    weights, losses, references
        As they stand; see :class:`Server`.
    genes
        The model's, once they are chosen.
    labels
        Cell types that enough sites hold, once that has been asked.
    """

    def __init__(self, settings: FederationSettings, terms: SetUp) -> None:
        self.task: Task | None = None
        self.genes: list[str] = []
        self.weights: NamedArrays = {}
        self.losses: list[float] = []
        self.references: References | Landmarks = NO_REFERENCES
        self.labels = list(terms.labels)
        self._settings = settings
        self._terms = terms
        self._min_holders = terms.min_holders
        self._optimizer = ServerOptimizer(settings.server_optimizer)
        self._best: tuple[int, NamedArrays] = (0, {})
        self._number = 0
        self._steps = self._run()
        self.task = next(self._steps, None)

    @property
    def most_steps(self) -> float:
        """See :attr:`fedscgen.aggregation.ServerOptimizer.most_steps`."""
        return self._optimizer.most_steps

    def take(self, sums: Sums) -> None:
        """Go on with the opened sum of the task.

        Raises
        ------
        ValueError
            It doesn't fit what was asked.
        """
        try:
            self.task = self._steps.send(sums)
        except StopIteration:
            self.task = None

    def end_search(self, reason: str) -> None:
        """Go on with the landmarks as they are, since the sites can't be asked any more.

        Raises
        ------
        NoMoreSumsError
            There are none yet.
        """
        try:
            self.task = self._steps.throw(NoMoreSumsError(reason))
        except StopIteration:
            self.task = None

    def _run(self) -> Steps:
        yield from self._choose_genes()
        yield from self._begin()
        yield from self._train()
        if len(self._terms.n_cells_at_most) > 1:  # a site that is alone finds its own, among its batches
            yield from self._find_references()

    def _ask(self, kind: str, arrays: NamedArrays, **more: Any) -> Task:
        self._number += 1
        return Task(kind, self._number, arrays, **more)

    def _choose_genes(self) -> Steps:
        """Find the genes that the model is of."""
        genes, n_top = self._terms.genes, self._settings.n_top_genes
        if n_top is not None and n_top < len(genes):
            sums = yield self._ask(VARIABLE_GENES, {}, group=OF_GENES, genes=tuple(genes))
            genes = choose_variable_genes(genes, sums.arrays, sums.n_sites, n_top)
        self.genes = list(genes)

    def _begin(self) -> Steps:
        """Find the weights that training begins with."""
        settings = self._settings
        model = find_model(settings.architecture)
        initial = model.initial_weights(len(self.genes), settings.find_seed(), **settings.model)
        if self._terms.weights:
            self.weights = dict(self._terms.weights)
            return
        search = model.begin(initial)
        means = None
        try:
            while True:
                question = search.send(means)
                sums = yield self._ask(BEGIN, question, group=COMPONENTS)
                self._check_weight(sums)
                means = {name: array / sums.weight for name, array in sums.arrays.items()}
        except StopIteration as end:
            self.weights = end.value
        if settings.n_rounds == 0 and self.weights is initial:
            raise ValueError(
                "n_rounds=0 trains nothing, and this model begins with random weights: train it, give it an initial "
                "model, or choose one that begins with principal components (linear_path=True)"
            )

    def _train(self) -> Steps:
        """Have every site train from the weights and average what comes of it, round after round."""
        if VALIDATION_LOSS in self.weights:
            raise ValueError(
                f"a weight of the model {self._settings.architecture!r} is called {VALIDATION_LOSS!r}, under which the "
                "loss travels beside the weights: give it another name"
            )
        for round_ in range(1, self._settings.n_rounds + 1):
            if self._stops_improving():
                logger.info("stopped after round %d: the validation loss no longer improves", round_ - 1)
                break
            sums = yield self._ask(TRAIN, self.weights, round=round_)
            self._check_weight(sums)
            average = self._average(sums)
            self._note_loss(sums)
            if self._has_jumped():
                self.weights = self._best[1]
            else:
                self.weights = self._optimizer.step(self.weights, average)
        if self._settings.early_stopping_patience is not None and self._settings.n_rounds:
            self._note_loss((yield self._ask(VALIDATE, self.weights)))
            self.weights = self._best[1]

    def _check_weight(self, sums: Sums) -> None:
        """Refuse sums that weigh more or less than sites of the announced sizes can.

        The sum of the weights is all that anybody sees, so that nobody can tell whose is wrong.
        """
        sizes = self._terms.n_cells_at_most.values()
        if self._settings.strategy == "weighted_fedavg":
            least, most = _LEAST_SHARE * sum(sizes) if sums.n_sites == len(sizes) else 0.0, float(sum(sizes))
        else:
            least = most = float(sums.n_sites)
        if not least - _ROUNDING <= sums.weight <= most + _ROUNDING:
            raise ValueError(
                f"the sites in a sum claim {sums.weight:g} cells together, and by what they announced they have "
                f"{least:g} to {most:g}: one of them, and nobody can tell which, has claimed what it hasn't"
            )

    def _has_jumped(self) -> bool:
        """Whether the round before has spoilt the weights, which is seen in the loss that they began this one with."""
        round_, loss = self._best[0], self.losses[-1]
        best = self.losses[round_ - 1] if round_ else loss
        if not has_jumped(loss, best):
            return False
        logger.warning(
            "the loss has jumped from %.4g to %.4g: training goes on from the weights of round %d. One site's weights "
            "don't fit the others', and the sum doesn't show whose",
            best,
            loss,
            round_,
        )
        return True

    def _average(self, sums: Sums) -> NamedArrays:
        who = "the average of the sites' weights"
        check_names(sums.arrays.keys() - {VALIDATION_LOSS}, self.weights, who=who)
        with np.errstate(over="ignore"):  # what is too large for float32 is refused by name
            average = from_sums(sums.arrays, sums.weight, like=self.weights, batchnorm=self._settings.batchnorm)
        check_update(average, self.weights, who=who)
        return average

    def _note_loss(self, sums: Sums) -> None:
        self.losses.append(float(sums.arrays[VALIDATION_LOSS]) / sums.weight)
        if self.losses[-1] <= min(self.losses):
            self._best = len(self.losses), self.weights

    def _stops_improving(self) -> bool:
        patience = self._settings.early_stopping_patience
        return patience is not None and len(self.losses) - self._best[0] >= patience

    def _find_references(self) -> Steps:
        """Find where cells belong, of cell types that enough sites hold."""
        kind = self._settings.reference
        if self.labels:
            holders = (yield self._ask(HOLDERS, {}, group=OF_REFERENCES, labels=tuple(self.labels))).arrays["holders"]
            enough = np.rint(holders) >= self._min_holders
            self.labels = [label for label, whether in zip(self.labels, enough, strict=True) if whether]
        if kind == "landmarks":
            self.references = yield from self._seek_landmarks()
            return
        if not self.labels:
            raise NoSharedLabelError(f"no cell type is held by {self._min_holders} of the sites that are left")
        labels = tuple(self.labels)
        sums = yield self._ask(REFERENCES, self.weights, group=OF_REFERENCES, labels=labels)
        if kind == "dominant":
            n_cells, means = sums.arrays.get("keys"), sums.arrays["values"]
        else:
            n_cells, means = sums.arrays["counts"], sums.arrays["sums"] / sums.arrays["counts"][:, None]
        counts = None if n_cells is None else np.rint(n_cells).astype(np.int64)
        self.references = References(labels, means, counts, kind)

    def _seek_landmarks(self) -> Generator[Task, Sums, Landmarks]:
        settings, labels = self._settings, tuple(self.labels)
        search = seek_landmarks(
            labels, label_noise=settings.label_noise, min_holders=self._min_holders, seed=settings.find_seed()
        )
        question = next(search)
        while True:
            try:
                try:
                    task = self._ask(LANDMARKS, self.weights, group=OF_REFERENCES, labels=labels, question=question)
                    sums = yield task
                except NoMoreSumsError as error:
                    question = search.throw(error)
                else:
                    question = search.send(dict(sums.arrays))
            except StopIteration as end:
                landmarks: Landmarks = end.value
                return landmarks


def has_jumped(loss: float, best: float) -> bool:
    """Whether a loss is so much above the best one that the weights must have been spoilt; NaN is."""
    return not loss <= best + _JUMP * max(1.0, abs(best))
