"""The coordinator: it drives the rounds, and sees only what the aggregator opens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from fedscgen._types import Message, NamedArrays
from fedscgen.correction import NoMoreSumsError
from fedscgen.federation._agreement import Description, SetUp, check_reference, collect_sealed, find_preparing
from fedscgen.federation._guard import ENDED
from fedscgen.federation._memory import RunMemory
from fedscgen.federation._plan import Plan
from fedscgen.federation._program import NO_REFERENCES, Program
from fedscgen.federation._protocol import AFTER, BEFORE, CORRECT, LANDMARKS, REFERENCES, SERVER, TRAIN
from fedscgen.federation._published import Published
from fedscgen.federation._sketch import check_site, sketch
from fedscgen.federation._transport import SiteError, TooFewSitesError
from fedscgen.secure import OPENED_SUM, AggregationError

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen._types import References
    from fedscgen.correction import Landmarks
    from fedscgen.federation._initial_model import InitialModel
    from fedscgen.federation._plan import Workflow
    from fedscgen.federation._program import Task
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
        self.settings = replace(settings, seed=settings.find_seed())
        self._members = self.sites
        self._transport = transport
        self._aggregator = aggregator
        self._init_model = init_model
        self._memory = RunMemory(None)
        self._plan: Plan | None = None
        self._program: Program | None = None
        self._round: int | None = None
        self._published = Published()
        self._groups: dict[str, list[str]] = {}

    @property
    def genes(self) -> list[str]:
        """The model's, once they are chosen, in the order of the first site and then of those that add some."""
        return [] if self._program is None else self._program.genes

    @property
    def labels(self) -> list[str]:
        """Cell types that enough sites report, sorted."""
        return [] if self._program is None else self._program.labels

    @property
    def weights(self) -> NamedArrays:
        """The federation's weights, as they stand."""
        return {} if self._program is None else self._program.weights

    @property
    def references(self) -> References | Landmarks:
        """Where cells belong; nowhere before the end."""
        return NO_REFERENCES if self._program is None else self._program.references

    @property
    def losses(self) -> list[float]:
        """The federation's validation loss of the weights with which each round began."""
        return [] if self._program is None else self._program.losses

    def run(self, track: Track = iter, on_round: OnRound | None = None, memory: Path | None = None) -> None:
        """Agree on genes and cell types, train, find references and have every site correct its cells.

        Parameters
        ----------
        track
            Wraps the rounds, to show progress.
        on_round
            Called after each round with its number and the federation's weights.
        memory
            Folder that holds what was agreed on and every opened sum. If it exists, the run goes on from there: no sum
            is opened again. Remove it when the result is kept.

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
            The memory is damaged, or of a federation with other settings.
        """
        self._memory = RunMemory(memory)
        if not self._go_on():
            self.agree()
        self._perform_all(*BEFORE)
        for _ in track(range(len(self.losses), self.settings.n_rounds)):
            if not self._perform(TRAIN):
                break
            if on_round is not None:
                on_round(len(self.losses), self.weights)
        self._perform_all(*AFTER)
        self.correct()

    def agree(self) -> None:
        """Propose a plan, ask the sites for genes and cell types, and tell them what they have in common.

        A site that doesn't answer has no part in the run: the others get a plan without it.
        """
        check_reference(self.settings.reference, self._aggregator)
        while True:
            sites = self.sites
            self._check_enough_sites()
            self._plan = plan = self._propose("training")
            answers = dict(self._ask(dict.fromkeys(sites, plan.to_message())))
            if self.sites != sites:
                continue
            self._send_settings({site: answers[site] for site in sites})  # in an order that isn't whose was fastest
            if self.sites == sites:
                self._memory.keep("plan", plan.to_message().to_buffer())
                break
        self._members = self.sites

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
        self._check_enough_sites()
        self._plan = plan = self._propose("correction")
        for message in (
            SetUp(list(genes)).to_message(plan=plan.to_json()),
            Message(CORRECT, {"references": references.to_json()}, weights),
        ):
            dict(self._ask(dict.fromkeys(self.sites, message)))

    def correct(self) -> None:
        """Have all members correct their own cells; they have found the result themselves."""
        self.sites = self._members
        dict(self._ask(dict.fromkeys(self.sites, Message(CORRECT))))

    def _propose(self, workflow: Workflow) -> Plan:
        weights = None if self._init_model is None else self._init_model.weights
        return Plan.propose(workflow, self.settings, self._aggregator, self.sites, weights)

    def _send_settings(self, answers: Mapping[str, Message]) -> None:
        described = {site: Description.from_message(answer) for site, answer in answers.items()}
        terms = SetUp.of(described, self.settings, self._init_model)
        self._program = Program(self.settings, terms)
        preparing = find_preparing(self._aggregator, self.settings)
        first = {} if preparing is None else preparing.prepare(list(answers))
        ready = dict(self._ask(dict.fromkeys(answers, terms.to_message(**first))))
        self._published.pass_on(sealed := collect_sealed(ready, answers))
        if preparing is not None:
            preparing.take_prepared({site: ready[site] for site in answers if site in ready})
        self._memory.keep("set-up", terms.to_message(sealed=sealed).to_buffer())

    def _go_on(self) -> bool:
        """Go on with the run that the memory is of, if there is one."""
        kept, set_up = self._memory.recall_message("plan"), self._memory.recall_message("set-up")
        if kept is None or set_up is None:
            return False
        self._plan = plan = Plan.from_message(kept)
        self._memory.check(plan.settings, self.settings)
        self.settings = plan.settings
        terms = SetUp.from_message(set_up)
        self._program = Program(plan.settings, terms)
        self.sites = [site for site in plan.sites if site in self._transport.sites]
        self._check_enough_sites()
        reader = self._aggregator.contributor(SERVER)
        for number, message in enumerate(self._memory.sums(), start=1):
            ended = ENDED in message.meta
            self._take(number, message, None if ended else reader.read_sum(message, number))
        for site in self.sites:
            self._published.note(site, self._published.n_sums)  # until they say what they know
        answers = dict(self._ask(dict.fromkeys(self.sites, plan.to_message())))
        for site, answer in answers.items():
            if answer.meta["n_sums"] is None:
                raise SiteError(f"site {site!r} has kept nothing of run {plan.run}: begin anew")
            self._published.note(site, int(answer.meta["n_sums"]))
        self._members = self.sites
        self._published.pass_on({s: sealed for s, sealed in set_up.meta.get("sealed", {}).items() if s in self.sites})
        logger.info("goes on with run %s after %d opened sums", plan.run, self._published.n_sums)
        return True

    def _perform_all(self, *kinds: str) -> None:
        while self._perform(*kinds):
            pass

    def _perform(self, *kinds: str) -> bool:
        """Open the sum of the next task, if it is of one of these kinds."""
        task = None if self._program is None else self._program.task
        if task is None or task.kind not in kinds:
            return False
        self._round = task.round
        sums: Sums | None = None
        try:
            message = (sums := self._open(task)).to_message()
        except NoMoreSumsError as error:
            message = Message(OPENED_SUM, {ENDED: str(error)})
        self._memory.add_sum(message)
        self._take(task.number, message, sums)
        self._published.let_go(self._members)
        self._round = None
        return True

    def _take(self, number: int, message: Message, sums: Sums | None) -> None:
        """Go on with an opened sum, or without one, of which every site is told with whatever it is asked next."""
        program = self._program
        try:
            if program is not None:
                program.end_search(str(message.meta[ENDED])) if sums is None else program.take(sums)
        except NoMoreSumsError as error:
            raise SiteError(str(error)) from error
        self._published.add(number, message)

    def _open(self, task: Task) -> Sums:
        """Open the sum of a task.

        Sums of a group are over the same sites: those that answer the first one.

        Raises
        ------
        NoMoreSumsError
            A site is missing while landmarks are sought.
        AggregationError, SiteError
            The sum could not be opened.
        """
        group = task.group
        if group is None:
            self.sites = self._members
            return self._sum(task)
        self.sites = self._groups.get(group, self.sites)  # a new group's are those that answered the sum before
        while True:
            asked = self.sites
            try:
                sums = self._sum(task)
            except (AggregationError, TooFewSitesError) as error:
                if len(self.sites) == len(asked):
                    raise
                if self._can_begin(group, len(self.sites)):
                    logger.warning("asks the sites that are left: %s", error)
                    continue
                logger.warning("asks the same sites once more, as all of them are needed: %s", error)
                sums = self._sum_again(task, asked)
            self._groups[group] = self.sites
            return sums

    def _can_begin(self, group: str | None, n_sites: int) -> bool:
        """Whether sums of a group can be over so many sites: none of them is open yet, and these are enough."""
        return group not in self._groups and n_sites >= max(2, self._least)

    def _sum_again(self, task: Task, sites: list[str]) -> Sums:
        self.sites = sites
        try:
            return self._sum(task)
        except (AggregationError, TooFewSitesError) as error:
            if len(sites) == 2 or task.group not in self._groups:
                raise
            lost = (
                f"a site was lost before {task.kind!r} was open, and a sum without it would show its part: begin again "
                f"when all sites answer ({error})"
            )
            raise (NoMoreSumsError if task.kind == LANDMARKS else SiteError)(lost) from error

    def _sum(self, task: Task) -> Sums:
        message, sites = task.to_message(), self.sites
        if task.kind == REFERENCES and self.settings.reference == "dominant":
            return self._aggregator.select(self._ask, sites, message)
        require_all = task.group is not None or self.settings.min_sites is None
        may_shrink = self._can_begin(task.group, len(sites) - 1)
        return self._aggregator.sum(self._ask, sites, message, require_all=require_all, may_shrink=may_shrink)

    def _ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Ask sites, tell them what was opened, and go on without those that don't answer, for the time being."""
        missing, n_opened = list(messages), self._published.n_sums
        task = None if self._program is None else self._program.task
        own_sketch = cache(lambda: None if task is None else sketch(task))  # once for all sites
        for site, answer in self._transport.ask(self._published.enclose(messages, self._round)):
            missing.remove(site)
            check_site(site, messages[site], answer, own_sketch)
            self._published.note(site, n_opened)
            yield site, answer
        if missing:
            self.sites = [site for site in self.sites if site not in missing]
            logger.warning("no answer from %s: the federation goes on without", ", ".join(missing))
            self._check_enough_sites()

    @property
    def _least(self) -> int:
        return self.settings.least_of(len(self._transport.sites if self._plan is None else self._plan.sites))

    def _check_enough_sites(self) -> None:
        if len(self.sites) < self._least:
            raise TooFewSitesError(
                f"{len(self.sites)} sites are left ({', '.join(self.sites) or 'none'}), and min_sites={self._least}: "
                "begin again when enough sites answer, or lower min_sites"
            )
