"""A site's guard: between what reaches the site and what its cells are asked.

A run is a plan that the site has agreed to. From then on the site knows by itself what comes next: it runs the same
:class:`Program` as the coordinator, on sums of which it finds out whether they are what the sites contributed. What is
out of order, repeated, out of bounds or of another run is refused by name, and nothing leaves the site.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import TYPE_CHECKING

from fedscgen.aggregation import change_norm, find_impossible_statistics, statistics_of
from fedscgen.federation._plan import hash_arrays, hash_json
from fedscgen.federation._policy import PolicyError
from fedscgen.federation._program import Program
from fedscgen.federation._protocol import BEGIN, LANDMARKS, TRAIN
from fedscgen.federation._record import Asked
from fedscgen.federation._settings import MOST_GENES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedscgen._types import Message, NamedArrays
    from fedscgen.federation._agreement import SetUp
    from fedscgen.federation._plan import Plan
    from fedscgen.federation._policy import SitePolicy
    from fedscgen.federation._program import Task
    from fedscgen.federation._record import CellsRecord
    from fedscgen.federation._settings import SiteOptions
    from fedscgen.secure import Contributor, Sums

logger = logging.getLogger(__name__)

ENDED = "ended"
"""In the place of an opened sum: there is none, and there will be no more of its group."""

_MOST_TIMES = 4  # that a sum is begun: twice for a selection, and once more each
_LEAST_TRAINING = 0.45  # of an announced size: it has more than half of that, of which it trains on nine in ten


class Guard:
    """Holds a run to what its site has agreed to.

    Parameters
    ----------
    site
        The site's name.
    contributor
        The site's half of the aggregator.
    policy
        What the site agrees to. ``None``: whatever is within bounds, as in a simulation.
    options
        The site's, of which ``min_holders`` and ``max_update_norm`` count here.
    record
        What the site's cells were asked over all runs; ``None`` where nobody counts.

    Attributes
    ----------
    plan
        What was agreed on; ``None`` before.
    program
        Where the run stands; ``None`` before genes and cell types are known.
    """

    def __init__(
        self,
        site: str,
        contributor: Contributor,
        policy: SitePolicy | None,
        options: SiteOptions,
        record: CellsRecord | None,
    ) -> None:
        self.plan: Plan | None = None
        self.program: Program | None = None
        self._site = site
        self._contributor = contributor
        self._policy = policy
        self._options = options
        self._record = record
        self._begun: Counter[int] = Counter()
        self._n_taken = 0
        self._fault = ""
        self._terms: SetUp | None = None
        self._own: tuple[int, NamedArrays, float] = 0, {}, 0.0

    def agree(self, plan: Plan) -> None:
        """Agree to a plan, or not.

        Raises
        ------
        PolicyError
            It isn't allowed here, out of bounds, or another than the one that is under way.
        """
        if self.plan != plan:
            if self._begun and self.program is not None and self.program.task is not None and not self._fault:
                raise PolicyError("another run is under way at this site: it began with another plan")
            self._begun, self.program, self._n_taken, self._fault = Counter(), None, 0, ""
        if self._policy is not None:
            self._policy.check_workflow(plan.workflow)
        if plan.workflow == "training":
            self._check(plan)
        self.plan = plan
        logger.info("site %r agrees. %s", self._site, plan.explain())

    def agree_to_correct(self, plan: Plan) -> None:
        """Agree to a plan that asks for nothing, and so comes together with the settings.

        Raises
        ------
        PolicyError
            It is of a training, before which sites introduce themselves.
        """
        if plan.workflow != "correction":
            raise PolicyError(f"the plan of a {plan.workflow} comes before its settings: sites have to meet first")
        self.agree(plan)

    def begin(self, terms: SetUp, announced: int) -> None:
        """Start the program, once genes and cell types in common are known.

        Parameters
        ----------
        terms
            What the sites have in common.
        announced
            The site's own ``n_cells_at_most``.

        Raises
        ------
        PolicyError
            There is no plan, genes and cell types were fixed already, there are too many genes or others than the plan
            lists, means of too few sites shall be opened, training shall begin with other weights than the plan says,
            others than the plan's sites are introduced, or sizes of sites are announced that this site doesn't agree
            to.
        """
        plan = self.require_plan()
        if self.program is not None:
            raise PolicyError("the sites have begun: genes and cell types can't change any more")
        if len(terms.genes) > MOST_GENES:
            raise PolicyError(f"{len(terms.genes)} genes are more than the {MOST_GENES} that a site agrees to")
        unlisted = set(terms.genes).difference(plan.settings.gene_list or terms.genes)
        if unlisted:
            raise PolicyError(f"{len(unlisted)} genes aren't in the plan's gene_list (first: {min(unlisted)!r})")
        if (hash_arrays(terms.weights) if terms.weights else None) != plan.init_model:
            raise PolicyError("training shall begin with other weights than the plan says")
        least = self._options.min_holders
        if terms.min_holders < least:
            raise PolicyError(
                f"means of {terms.min_holders} sites shall be opened, and min_holders={least} at this site"
            )
        if set(terms.n_cells_at_most) != set(plan.sites):
            raise PolicyError(f"{sorted(terms.n_cells_at_most)} announce cells, and the plan is of {list(plan.sites)}")
        if terms.introductions and set(terms.introductions) != set(plan.sites):
            raise PolicyError(f"introduced are {sorted(terms.introductions)}, and the plan is of {sorted(plan.sites)}")
        if terms.n_cells_at_most[self._site] != announced:
            raise PolicyError(f"site {self._site!r} has announced {announced} cells, and another number is passed on")
        if self._policy is not None:
            self._policy.check_sizes({s: n for s, n in terms.n_cells_at_most.items() if s != self._site}, announced)
        self.program, self._terms = Program(plan.settings, terms), terms

    def count_sums(self) -> int:
        """How many opened sums the site knows of."""
        task = self._require_program().task
        return self._n_taken if task is None else task.number - 1

    def follow(self, opened: Mapping[int, Message]) -> dict[int, Message]:
        """Take the sums that were opened since; those that were new to this site.

        One that isn't as it should be ends the run: whatever comes of it afterwards is refused.

        Raises
        ------
        PolicyError
            One of them isn't the next.
        AggregationError
            One isn't what the sites contributed.
        """
        new = {}
        for number, message in sorted(opened.items()):
            program = self._require_program()
            if program.task is not None and number < program.task.number:
                continue  # sent again, as the answer had not arrived
            try:
                self._take(program, number, message)
            except Exception as error:
                self._fault = str(error)
                raise
            self._n_taken = number
            new[number] = message
        return new

    def _take(self, program: Program, number: int, message: Message) -> None:
        if program.task is None or number > program.task.number:
            raise PolicyError(f"the sum of number {number} was published, and it isn't the next of this run")
        if ENDED in message.meta:
            if program.task.kind != LANDMARKS:
                raise PolicyError(f"only a search for landmarks may end early, and not {program.task.kind!r}")
            program.end_search(str(message.meta[ENDED]))
        else:
            before, sums = program.weights, self._contributor.read_sum(message, number)
            own_number, own, weight = self._own
            plan = self.require_plan()
            if number == own_number and (
                sums.n_sites == len(plan.sites) or self._site in message.meta.get("sites", ())
            ):
                self._check_statistics(own, weight, sums)
            program.take(sums)
            self._check_change(before, program.weights, number)

    def note_own(self, number: int, arrays: NamedArrays, weight: float) -> None:
        """Take down what of the site's own contribution tells whether a sum can be one that it is in."""
        self._own = number, statistics_of(arrays), weight

    def _check_statistics(self, own: NamedArrays, weight: float, sums: Sums) -> None:
        """Refuse BatchNorm statistics that no sum with the site's own gives, such as some that single out a cell."""
        if own.keys() - sums.arrays.keys():
            return  # the program refuses other arrays than were asked for
        means = {name: sums.arrays[name] / sums.weight for name in own}
        name = find_impossible_statistics(own, weight / sums.weight, means, self.require_plan().settings.batchnorm)
        if name:
            raise PolicyError(f"the sum's {name} is below what this site alone makes of it: somebody has made it up")

    def _check_change(self, before: NamedArrays, after: NamedArrays, number: int) -> None:
        """Refuse weights that no training from the last ones leads to, such as some that single out a cell."""
        bound = self._options.max_update_norm
        if bound is None or before.keys() != after.keys():
            return  # what comes before any training follows from the components
        share = change_norm(before, after)
        if not share <= self._require_program().most_steps * bound:  # NaN as well
            raise PolicyError(
                f"sum {number} changes the weights by {share:.3g} of their norm, which sites that keep to "
                f"max_update_norm={bound:g} can't have made of it: one of them has contributed something else"
            )

    def admit(self, message: Message) -> Task:
        """The task that a message asks for, as this site knows it.

        Raises
        ------
        PolicyError
            It is not this task's turn, or it was asked for too often.
        """
        task = self._require_program().task
        number = message.meta.get("number")
        if task is None or (message.kind, number) != (task.kind, task.number):
            expected = "nothing any more" if task is None else f"{task.kind!r} for sum {task.number}"
            raise PolicyError(f"the run asks for {message.kind!r} for sum {number}, and its plan for {expected}")
        if self._begun[task.number] == _MOST_TIMES:
            raise PolicyError(f"sum {task.number} was begun {_MOST_TIMES} times: no more of it")
        if self._record is not None and self._policy is not None:
            sites = self.require_plan().sites
            present = self._contributor.find_sites(message) or sites
            self._record.count(sites, self._policy, group=task.group, present=present, asked=self._measure(task))
        self._begun[task.number] += 1
        return task

    def _measure(self, task: Task) -> Asked | None:
        """How many sums of whole cells a task opens: along each direction, or BatchNorm's means of a round."""
        if task.kind not in (BEGIN, TRAIN) or self._terms is None:
            return None
        plan, genes = self.require_plan(), self._require_program().genes
        n_cells = int(_LEAST_TRAINING * sum(self._terms.n_cells_at_most.values()))
        if task.kind == TRAIN:
            return Asked("", 1, n_cells)
        about = [plan.sites, genes, plan.settings.architecture, dict(plan.settings.model), hash_arrays(task.arrays)]
        n_vectors = sum(array.size for array in task.arrays.values()) // len(genes)
        return Asked(hash_json(about)[:16], n_vectors, n_cells)

    def save(self) -> bytes:
        """What :meth:`restore` needs, so that a run that begins again from the disk is held to no less."""
        return json.dumps({"begun": self._begun, "fault": self._fault}).encode()

    def restore(self, saved: bytes) -> None:
        """Take up what was kept of the run that was agreed to.

        Raises
        ------
        PolicyError
            The run has ended at this site.
        """
        kept = json.loads(saved)
        self._begun = Counter({int(number): times for number, times in kept["begun"].items()})
        self._fault = kept["fault"]
        self._require_program()

    def require_end(self) -> Program | None:
        """The program, if it has come to its end; nothing in a run that trains nothing.

        Raises
        ------
        PolicyError
            Sums are missing.
        """
        if self.require_plan().workflow == "correction":
            return None
        program = self._require_program()
        if program.task is not None:
            raise PolicyError(f"the run wants to end, and its plan asks for {program.task.kind!r} yet")
        return program

    def require_plan(self) -> Plan:
        """The plan that was agreed on.

        Raises
        ------
        PolicyError
            There is none.
        """
        if self.plan is None:
            raise PolicyError("the coordinator must propose a plan first")
        return self.plan

    def _require_program(self) -> Program:
        plan = self.require_plan()
        if plan.workflow != "training":
            raise PolicyError("the coordinator announced a correction, in which nobody is asked for anything")
        if self.program is None:
            raise PolicyError(f"site {self._site!r} has no model yet: the server must send its settings first")
        if self._fault:
            raise PolicyError(f"the run has ended at this site: {self._fault}")
        return self.program

    def _check(self, plan: Plan) -> None:
        if self._site not in plan.sites:
            raise PolicyError(f"site {self._site!r} is not among the sites of this run")
        if self._policy is not None:
            self._policy.check(plan.aggregator, reveals_counts=plan.reveals_counts, n_sites=len(plan.sites))
            self._policy.check_weights(plan.init_model)
            self._policy.check_genes(plan.settings.genes)
            if self._record is not None:
                self._record.check(plan.sites, self._policy)
