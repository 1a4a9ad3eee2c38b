"""The coordinator: it drives the rounds, and sees only what the aggregator opens."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedscgen._types import Message, NamedArrays, References
from fedscgen.aggregation import ServerOptimizer, check_update, from_sums
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation._protocol import (
    COMPONENTS,
    CORRECT,
    DESCRIBE,
    REFERENCES,
    SET_UP,
    TRAIN,
    VALIDATE,
    VALIDATION_LOSS,
)
from fedscgen.federation._transport import SiteError
from fedscgen.model import FedVAE
from fedscgen.principal_components import BASIS, find_principal_components

if TYPE_CHECKING:
    from fedscgen.correction import ReferenceKind
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.federation._transport import Transport
    from fedscgen.secure import Aggregator, Sums

logger = logging.getLogger(__name__)

# settings of which the sites need to know
_OF_SITES = (
    "n_epochs", "lr", "lr_decay", "batch_size", "strategy", "batchnorm", "proximal_weight", "restore_best_epoch",
)  # fmt: skip

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

    Attributes
    ----------
    sites
        Sites that have answered every question so far. One that misses an answer takes no further part.
    genes
        Genes that all sites hold, in the first site's order.
    labels
        Cell types that at least two sites report, sorted.
    weights
        The federation's weights, as they stand.
    references
        Where each shared cell type belongs; none before the end.
    losses
        The federation's validation loss of the weights with which each round began.
    """

    def __init__(self, transport: Transport, aggregator: Aggregator, settings: FederationSettings) -> None:
        self.sites = list(transport.sites)
        self.genes: list[str] = []
        self.labels: list[str] = []
        self.weights: NamedArrays = {}
        self.references = References((), np.empty((0, 0)))
        self.losses: list[float] = []
        self._transport = transport
        self._aggregator = aggregator
        self._settings = settings
        self._optimizer = ServerOptimizer(settings.server_optimizer)
        self._round: int | None = None
        self._best: tuple[int, NamedArrays] = (0, {})
        self._reported: dict[str, list[str]] = {}

    def run(self, track: Track = iter, on_round: OnRound | None = None) -> None:
        """Agree on genes and cell types, train, find references and have every site correct its cells.

        Parameters
        ----------
        track
            Wraps the rounds, to show progress.
        on_round
            Called after each round with its number and the federation's weights.

        Raises
        ------
        SiteError
            A site failed.
        AggregationError
            A sum could not be opened.
        ValueError
            The sites share no gene.
        NoSharedLabelError
            Several sites take part, and no cell type is held by two.
        """
        self.agree()
        self.begin()
        for round_ in track(range(1, self._settings.n_rounds + 1)):
            self._round = round_
            self.train_round()
            if on_round is not None:
                on_round(round_, self.weights)
            if self._has_stopped_improving():
                logger.info("stopped in round %d: the validation loss no longer improves", round_)
                break
        self._round = None
        if self._settings.early_stopping_patience is not None:
            self._validate()
        self.find_references()
        self.correct()

    def agree(self) -> None:
        """Ask the sites for genes and cell types, and send them what they have in common and the settings."""
        self._reference_kind()
        answers = dict(self._ask(dict.fromkeys(self.sites, Message(DESCRIBE))))
        self.genes = self._common_genes({site: answer.meta["genes"] for site, answer in answers.items()})
        self._reported = {site: answer.meta["labels"] for site, answer in answers.items()}
        self.labels = self._shared_labels()
        settings = self._settings
        common = {
            "genes": self.genes,
            "model": dict(settings.model),
            **{name: getattr(settings, name) for name in _OF_SITES},
        }
        seeds = {site: settings.seed + position for position, site in enumerate(self.sites)}
        dict(self._ask({site: Message(SET_UP, {**common, "seed": seed}) for site, seed in seeds.items()}))

    def begin(self) -> None:
        """Make the network that training begins with: at the sites' principal components, if it has a linear path."""
        n_genes, settings = len(self.genes), self._settings
        self.weights = initial_weights(n_genes, settings.seed, settings.model)
        if FedVAE.begins_at_components(self.weights):
            components = find_principal_components(self._mean_moments, n_genes, self._n_latent)
            self.weights = FedVAE.begin_at(components, self.weights)

    def _mean_moments(self, basis: np.ndarray) -> NamedArrays:
        sums = self._aggregator.sum(self._ask, self.sites, Message(COMPONENTS, {"task": COMPONENTS}, {BASIS: basis}))
        return {name: array / sums.weight for name, array in sums.arrays.items()}

    def train_round(self) -> None:
        """Have every site train from the federation's weights, and average what comes of it."""
        sums = self._sum(TRAIN)
        self._note_loss(sums)
        summed = {name: array for name, array in sums.arrays.items() if name != VALIDATION_LOSS}
        average = from_sums(summed, sums.weight, like=self.weights)
        check_update(average, self.weights, who="the average of the sites' weights")
        self.weights = self._optimizer.step(self.weights, average)

    def find_references(self) -> None:
        """Find each shared cell type's reference, from sites that are all still there."""
        self.labels = self._shared_labels()
        kind = self._reference_kind()
        if not self.labels:
            self.references = References((), np.empty((0, self._n_latent)), None, kind)
            return
        task = Message(REFERENCES, {"task": REFERENCES, "reference": kind, "labels": self.labels}, self.weights)
        if kind == "dominant":
            sums = self._aggregator.dominant(self._ask, self.sites, task)
            n_cells = sums.arrays.get("n_cells")
            means = sums.arrays["means"]
        else:
            # with a site missing, a type might be left to a single one, whose own mean would be opened
            sums = self._aggregator.sum(self._ask, self.sites, task, require_all=True)
            n_cells = sums.arrays["counts"]
            means = sums.arrays["sums"] / n_cells[:, None]
        counts = None if n_cells is None else np.rint(n_cells).astype(np.int64)
        self.references = References(tuple(self.labels), means, counts, kind)

    def correct(self) -> None:
        """Send the result to the sites; each corrects its own cells."""
        message = Message(CORRECT, {"references": self.references.to_json()}, self.weights)
        dict(self._ask(dict.fromkeys(self.sites, message)))

    def _sum(self, task: str) -> Sums:
        return self._aggregator.sum(self._ask, self.sites, Message(task, {"task": task}, self.weights))

    def _validate(self) -> None:
        """Find the loss of the last round's weights, and go back to the best ones."""
        self._note_loss(self._sum(VALIDATE))
        self.weights = self._best[1]

    def _note_loss(self, sums: Sums) -> None:
        self.losses.append(float(sums.arrays[VALIDATION_LOSS]) / sums.weight)
        if self.losses[-1] <= min(self.losses):
            self._best = len(self.losses), self.weights

    def _has_stopped_improving(self) -> bool:
        patience = self._settings.early_stopping_patience
        return patience is not None and len(self.losses) - self._best[0] >= patience

    def _ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Ask sites, and go on without those that don't answer."""
        missing = list(messages)
        for site, answer in self._transport.ask(self._in_this_round(messages)):
            missing.remove(site)
            yield site, answer
        if missing:
            self.sites = [site for site in self.sites if site not in missing]
            logger.warning("no answer from %s: the federation goes on without", ", ".join(missing))
        if not self.sites:
            raise SiteError("no site is left: none answered the last question")

    def _in_this_round(self, messages: Mapping[str, Message]) -> Mapping[str, Message]:
        """The messages with the round's number; one that goes to several sites stays one."""
        if self._round is None:
            return messages
        entered: dict[int, Message] = {}
        for message in messages.values():
            meta = {**message.meta, "round": self._round}
            entered.setdefault(id(message), Message(message.kind, meta, message.arrays))
        return {site: entered[id(message)] for site, message in messages.items()}

    def _common_genes(self, genes: Mapping[str, list[str]]) -> list[str]:
        sets = [set(names) for names in genes.values()]
        common = set.intersection(*sets)
        if not common:
            examples = ", ".join(f"{site!r}: {names[0]!r}" for site, names in genes.items())
            raise ValueError(f"the sites share no gene (first of each: {examples}): use the same gene names everywhere")
        left_out = set.union(*sets) - common
        if left_out:
            shown = ", ".join(sorted(left_out)[:5])
            logger.warning("%d genes are not held by every site and left out (%s, ...)", len(left_out), shown)
        return [name for name in next(iter(genes.values())) if name in common]

    def _shared_labels(self) -> list[str]:
        held = Counter(label for site in self.sites for label in self._reported[site])
        shared = sorted(label for label, n_sites in held.items() if n_sites >= 2)
        if not shared and len(self.sites) > 1:
            raise NoSharedLabelError(
                "no cell type is reported by two sites: check that labels are spelled alike everywhere "
                f"({_listed(self._reported)}), or lower min_cells"
            )
        return shared

    def _reference_kind(self) -> ReferenceKind:
        if self._settings.reference == "dominant" and not self._aggregator.finds_dominant:
            raise ValueError(
                f"reference='dominant' would show every site's counts to the coordinator of a {self._aggregator.name} "
                "sum: use reference='mean', secure='crypten', or MaskedAggregator(reveal_counts=True)"
            )
        return self._settings.reference or ("dominant" if self._aggregator.finds_dominant else "mean")

    @property
    def _n_latent(self) -> int:
        return len(self.weights["encoder.mean.bias"])


def initial_weights(n_genes: int, seed: int, model: Mapping[str, Any]) -> NamedArrays:
    """The network's weights as a model of ``n_genes`` genes has them right after its construction under ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FedVAE(n_genes, **model).weights()


def _listed(reported: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{site}: {', '.join(labels[:3]) or 'none'}" for site, labels in reported.items())
