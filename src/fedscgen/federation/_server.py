"""The coordinator: it drives the rounds, and sees only what the aggregator opens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedscgen._types import Message, NamedArrays
from fedscgen.aggregation import ServerOptimizer, check_update, from_sums
from fedscgen.federation._agreement import Description, agree_on_genes, choose_labels
from fedscgen.federation._checkpoint import Checkpoint
from fedscgen.federation._models import find_model
from fedscgen.federation._open_references import NO_REFERENCES, check_reference, open_references
from fedscgen.federation._protocol import (
    BEGIN,
    CORRECT,
    DESCRIBE,
    SET_UP,
    TRAIN,
    VALIDATE,
    VALIDATION_LOSS,
    number_round,
)
from fedscgen.federation._settings import settings_as_json
from fedscgen.federation._transport import SiteError
from fedscgen.secure import AggregationError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from fedscgen._types import References
    from fedscgen.correction import Landmarks
    from fedscgen.federation._initial_model import InitialModel
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.federation._transport import Transport
    from fedscgen.secure import Aggregator, Sums

logger = logging.getLogger(__name__)

Track = Callable[[Iterable[int]], Iterable[int]]
OnRound = Callable[[int, NamedArrays], None]


class Server:
    """Runs a federation from the first question to the last site's correction.

    Parameters
    ----------
    transport
        The way to the sites.
    aggregator
        How sums over the sites are opened; entered by the caller.
    settings
        What the federation agrees on.
    init_model
        What training begins with, on whose genes the federation then works; it stays here. ``None``: random weights.

    Attributes
    ----------
    sites
        Sites that have answered every question since the last round, the references or the correction began. One that
        misses an answer is asked again when the next of these begins, except after the first two questions.
    genes
        Genes that all sites hold, in the first site's order; or those that any holds, in the same order and then in
        that of the sites that add them.
    labels
        Cell types that enough sites report, sorted.
    weights
        The federation's weights, as they stand.
    references
        Where cells belong; nowhere before the end.
    losses
        The federation's validation loss of the weights with which each round began.
    settings
        The settings, with a seed that is a number.
    """

    def __init__(
        self,
        transport: Transport,
        aggregator: Aggregator,
        settings: FederationSettings,
        init_model: InitialModel | None = None,
    ) -> None:
        self.sites = list(transport.sites)
        self._members = self.sites
        self.genes: list[str] = []
        self.labels: list[str] = []
        self.weights: NamedArrays = {}
        self.references: References | Landmarks = NO_REFERENCES
        self.losses: list[float] = []
        self._transport = transport
        self._aggregator = aggregator
        self._given = settings
        self._init_model = init_model
        self._seed = settings.find_seed()
        self.settings = replace(settings, seed=self._seed)
        self._model = find_model(settings.architecture)
        self._optimizer = ServerOptimizer(settings.server_optimizer)
        self._round: int | None = None
        self._best: tuple[int, NamedArrays] = (0, {})
        self._described: dict[str, Description] = {}

    def run(self, track: Track = iter, on_round: OnRound | None = None, checkpoint: Path | None = None) -> None:
        """Agree on genes and cell types, train, find references and have every site correct its cells.

        Parameters
        ----------
        track
            Wraps the rounds, to show progress.
        on_round
            Called after each round with its number and the federation's weights.
        checkpoint
            File that holds the state after each finished round, and the references once they are found: these are
            opened only once. If it exists, the run goes on from there, with the sites that are there now. Remove it
            when the result is kept.

        Raises
        ------
        SiteError
            A site failed, or fewer than ``min_sites`` are left.
        AggregationError
            A sum could not be opened.
        ValueError
            The sites share no gene, nothing is trained and the model would stay random, or a site's ``min_holders`` is
            above the number of sites.
        NoSharedLabelError
            Several sites take part, and no cell type is held by two; with landmarks, only if all cells have labels.
        CheckpointError
            The checkpoint is damaged, or of a federation with other settings or genes.
        """
        saved = None if checkpoint is None else Checkpoint.read(checkpoint)
        self.agree()
        if checkpoint is None or saved is None:
            self.begin()
        else:
            saved.check(checkpoint, self._given, self.genes, self._members)
            self._resume(saved)
        if saved is None or saved.references is None:
            first = 1 if saved is None else saved.round + 1
            self._train(track(range(first, self.settings.n_rounds + 1)), on_round, checkpoint)
            if self.settings.early_stopping_patience is not None and self.losses:
                self._validate()
            self.find_references()
            if checkpoint is not None:
                self._state(self.references).write(checkpoint)
        self.correct()

    def agree(self) -> None:
        """Ask the sites for genes and cell types, and send them what they have in common and the settings."""
        check_reference(self.settings.reference, self._aggregator)
        self._check_enough_sites()
        question = Message(DESCRIBE, {"reference": self.settings.reference})
        answers = dict(self._ask(dict.fromkeys(self.sites, question)))
        # in an order that doesn't depend on who was fastest
        self._described = {site: Description.from_message(answers[site]) for site in self.sites}
        genes = agree_on_genes({site: of.genes for site, of in self._described.items()}, self.settings.genes)
        self.genes = genes if self._init_model is None else self._init_model.choose_genes(genes)
        self.labels = self._find_labels()
        self._send_settings()

    def serve(self, genes: Sequence[str], weights: NamedArrays, references: References | Landmarks) -> None:
        """Have sites that come after training correct their cells with its result; they are asked for nothing.

        Parameters
        ----------
        genes, weights, references
            The model's, with the genes in its order.

        Raises
        ------
        SiteError
            A site failed, or fewer than ``min_sites`` are left.
        """
        self.genes, self.weights, self.references = list(genes), dict(weights), references
        self._check_enough_sites()
        self._send_settings()
        self.correct()

    def _send_settings(self) -> None:
        common = {"genes": self.genes, "settings": settings_as_json(self.settings)}
        seeds = {site: self._seed + position for position, site in enumerate(self.sites)}
        dict(self._ask({site: Message(SET_UP, {**common, "seed": seed}) for site, seed in seeds.items()}))
        self._members = self.sites

    def begin(self) -> None:
        """Find the weights that training begins with, for which the model may ask for sums over the sites.

        Raises
        ------
        ValueError
            Nothing will be trained, and the weights are random.
        """
        initial = self._model.initial_weights(len(self.genes), self._seed, **self.settings.model)
        given = self._init_model
        self.weights = self._model.begin(initial, self._open_mean) if given is None else given.fit_to(initial)
        if self.settings.n_rounds == 0 and self.weights is initial:
            raise ValueError(
                "n_rounds=0 trains nothing, and this model begins with random weights: train it, give it an initial "
                "model, or choose one that begins with principal components (linear_path=True)"
            )

    def _open_mean(self, question: Mapping[str, np.ndarray]) -> NamedArrays:
        sums = self._aggregator.sum(self._ask, self.sites, Message(BEGIN, {"task": BEGIN}, question))
        return {name: array / sums.weight for name, array in sums.arrays.items()}

    def train_round(self) -> None:
        """Have every member train from the federation's weights, and average what comes of it.

        Raises
        ------
        ValueError
            A weight has the name under which the loss travels, or the opened sums don't fit the federation's weights.
        """
        if VALIDATION_LOSS in self.weights:
            raise ValueError(
                f"a weight of the model {self.settings.architecture!r} is called {VALIDATION_LOSS!r}, under which the "
                "loss travels beside the weights: give it another name"
            )
        sums = self._sum(TRAIN)
        self._note_loss(sums)
        summed = {name: array for name, array in sums.arrays.items() if name != VALIDATION_LOSS}
        who = "the average of the sites' weights"
        check_update(summed, self.weights, who=who)
        average = from_sums(summed, sums.weight, like=self.weights, batchnorm=self.settings.batchnorm)
        check_update(average, self.weights, who=who)  # large sums may still be too large for float32
        self.weights = self._optimizer.step(self.weights, average)

    def find_references(self) -> None:
        """Find where cells belong, from sites that all answer.

        If some don't, nothing is opened, and the others are asked again, for the cell types that they share.

        Raises
        ------
        AggregationError
            A sum could not be opened, and that isn't because sites are missing, or one alone is left.
        """
        self.sites = self._members
        while True:
            asked = self.sites
            self.labels = self._find_labels()
            min_holders = max(self._described[site].min_holders for site in asked)
            try:
                self.references = open_references(
                    self._aggregator, self._ask, asked, self.settings, self.labels, self.weights, min_holders
                )
                return
            except AggregationError as error:
                if not 2 <= len(self.sites) < len(asked):
                    raise
                logger.warning("asks the sites that are left for references: %s", error)

    def correct(self) -> None:
        """Send the result to all members; each corrects its own cells."""
        self.sites = self._members
        message = Message(CORRECT, {"references": self.references.to_json()}, self.weights)
        dict(self._ask(dict.fromkeys(self.sites, message)))

    def _train(self, rounds: Iterable[int], on_round: OnRound | None, checkpoint: Path | None) -> None:
        for round_ in rounds:
            if self._stops_improving():
                logger.info("stopped after round %d: the validation loss no longer improves", round_ - 1)
                break
            self._round = round_
            self.train_round()
            if checkpoint is not None:
                self._state().write(checkpoint)
            if on_round is not None:
                on_round(round_, self.weights)
        self._round = None

    def _state(self, references: References | Landmarks | None = None) -> Checkpoint:
        return Checkpoint(
            settings=settings_as_json(self.settings),
            round=self._optimizer.state[0],
            genes=self.genes,
            losses=self.losses,
            best=self._best if self.settings.early_stopping_patience is not None else (0, {}),
            sites=self._members,
            weights=self.weights,
            optimizer=self._optimizer.state,
            references=references,
        )

    def _resume(self, saved: Checkpoint) -> None:
        self.weights, self.losses, self._best = saved.weights, saved.losses, saved.best
        self._optimizer.state = saved.optimizer
        self.references = saved.references or self.references
        logger.info("goes on after round %d%s", saved.round, ", with its references" if saved.references else "")

    def _sum(self, task: str) -> Sums:
        """What all members contribute, also those that missed an answer before."""
        self.sites = self._members
        return self._aggregator.sum(self._ask, self.sites, Message(task, {"task": task}, self.weights))

    def _validate(self) -> None:
        """Find the loss of the last round's weights, and go back to the best ones."""
        self._note_loss(self._sum(VALIDATE))
        self.weights = self._best[1]

    def _note_loss(self, sums: Sums) -> None:
        self.losses.append(float(sums.arrays[VALIDATION_LOSS]) / sums.weight)
        if self.losses[-1] <= min(self.losses):
            self._best = len(self.losses), self.weights

    def _stops_improving(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and len(self.losses) - self._best[0] >= patience

    def _ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Ask sites, and go on without those that don't answer, for the time being."""
        missing = list(messages)
        for site, answer in self._transport.ask(number_round(self._round, messages)):
            missing.remove(site)
            yield site, answer
        if missing:
            self.sites = [site for site in self.sites if site not in missing]
            logger.warning("no answer from %s: the federation goes on without", ", ".join(missing))
            self._check_enough_sites()

    def _check_enough_sites(self) -> None:
        least, left = self.settings.min_sites, ", ".join(self.sites) or "none"
        if len(self.sites) < least:
            raise SiteError(
                f"{len(self.sites)} of {len(self._transport.sites)} sites are left ({left}), and min_sites={least}: "
                "begin again when enough sites answer, or lower min_sites"
            )

    def _find_labels(self) -> list[str]:
        return choose_labels({site: self._described[site] for site in self.sites}, self.settings.reference)
