"""A site: the only place where its cells, counts and means exist in the clear."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedscgen._batches import name_batches
from fedscgen._data import check_data, check_size
from fedscgen._genes import lacks_genes
from fedscgen._normalize import normalize_counts
from fedscgen._options import check_kind
from fedscgen._types import Message
from fedscgen.correction import read_references, refuse_options_by_type
from fedscgen.federation._agreement import SetUp
from fedscgen.federation._correct_cells import correct_cells
from fedscgen.federation._guard import Guard
from fedscgen.federation._ledger import PrivacyLedger
from fedscgen.federation._memory import RunMemory
from fedscgen.federation._meta import check_question
from fedscgen.federation._plan import Plan
from fedscgen.federation._policy import LabelNames, PolicyError
from fedscgen.federation._protocol import CORRECT, DESCRIBE, SERVER, SET_UP, TASKS
from fedscgen.federation._published import GROUP_KEY, take_out
from fedscgen.federation._randomness import Randomness
from fedscgen.federation._record import CellsRecord
from fedscgen.federation._settings import SiteOptions
from fedscgen.federation._site_cells import SiteCells
from fedscgen.federation._sketch import add_sketch
from fedscgen.federation._tasks import SiteTasks
from fedscgen.model import CorrectionOptions
from fedscgen.secure import Contribution, Protection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from fedscgen._types import Buffer
    from fedscgen.federation._models import FederatedModel
    from fedscgen.federation._policy import SitePolicy
    from fedscgen.federation._settings import FederationSettings
    from fedscgen.secure import Contributor

logger = logging.getLogger(__name__)


class Client:
    """One site of a federation. It answers messages, and nothing but its answers leaves it.

    Parameters
    ----------
    site
        The site's name, unique in the federation.
    adata
        The site's cells, log-normalised. It is never changed.
    contributor
        The site's half of the federation's aggregator.
    options
        What is where in ``adata``, and the size from which the site reports a cell type.
    correction
        How the site corrects its cells.
    accelerator
        Where to train, as Lightning names it: ``"cpu"``, ``"gpu"``, ``"auto"``.
    label_salt
        A secret that all sites share. Cell types then leave the site as keyed hashes (HMAC-SHA256) instead of names.
        Who holds the salt can guess names and compare their hashes; who doesn't, such as the coordinator, can't, and
        sees only how many types a site reports and which ones others report too. Types that a site has no cell of keep
        their hash there, also in what it predicts; a warning says so. ``None``: they travel by name.
    ledger
        Where every message is recorded; ``None`` begins a new ledger.
    policy
        What the site agrees to. ``None``: any plan within bounds, as in a simulation.
    seed
        Of the site's own random numbers, such as those that choose its training cells; no coordinator knows them.
        ``None``: of the operating system's randomness; with a ``record`` they are the same in all runs of the cells.
    memory
        Folder in which the site keeps what it needs to take part in a run again after its process has ended; none but
        the site may read it. ``None``: it keeps nothing.
    record
        File in which the site counts what its cells were asked over all runs; see :class:`SitePolicy`. ``None``: nobody
        counts.

    Attributes
    ----------
    model
        The site's model, once the federation has agreed on its genes. In its references, once the federation has
        finished, types that the site knows have the site's own names; those of a site that is alone are its own.
    corrected
        The site's corrected cells, once the federation has finished.
    history
        One row per epoch: ``round``, ``epoch``, ``train_loss``, ``validation_loss``, ``seconds``.
    ledger
        Every message that reached or left this site.

    Raises
    ------
    KeyError, ValueError
        The data can't be used; see :meth:`fedscgen.model.FedSCGEN.setup_anndata`. The message names the site.
    """

    def __init__(
        self,
        site: str,
        adata: AnnData,
        contributor: Contributor,
        options: SiteOptions | None = None,
        correction: CorrectionOptions | None = None,
        *,
        accelerator: str = "auto",
        label_salt: str | None = None,
        ledger: PrivacyLedger | None = None,
        policy: SitePolicy | None = None,
        seed: int | None = None,
        memory: Path | None = None,
        record: Path | None = None,
    ) -> None:
        options = SiteOptions() if options is None else options
        correction = CorrectionOptions() if correction is None else correction
        check_kind(options, SiteOptions, "options")
        check_kind(correction, CorrectionOptions, "correction")
        adata, batch_key = name_batches(adata, options.batch_key)
        options = replace(options, batch_key=batch_key)
        self.site = site
        self.corrected: AnnData | None = None
        self.history: list[dict[str, Any]] = []
        self.ledger = PrivacyLedger() if ledger is None else ledger
        self._keys = options.keys
        self._adata = adata = normalize_counts(adata, self._keys) if options.normalize else adata
        self._options = options
        self._cells = SiteCells(adata, options, LabelNames(label_salt))
        self._contributor = contributor
        self._accelerator = accelerator
        self._correction = correction
        self._policy = policy
        self._record = None if record is None else CellsRecord(record, map(str, adata.obs_names), adata.n_vars)
        self._guard = self._make_guard()
        drawn = secrets.randbelow(2**32) if self._record is None else self._record.find_seed()
        self._seed = drawn if seed is None else seed
        self._randomness = Randomness(self._seed)
        self._memories = memory
        self._memory = RunMemory(None)
        self._tasks: SiteTasks | None = None
        check_data(adata, self._keys, who=f"site {site!r}: ", refuse_counts=True)

    def handle(self, data: Buffer) -> memoryview:
        """Answer a message in the wire format; both are entered into the ledger.

        Raises
        ------
        WireFormatError
            ``data`` is no message, or none of its kind.
        PolicyError
            The message isn't what the run's plan has next; nothing leaves the site.
        AggregationError, ValueError
            The message can't be answered; nothing leaves the site.
        """
        message = Message.from_bytes(data)
        check_question(message)
        keep = message.kind == DESCRIBE or "plan" in message.meta  # all that the run will do
        self.ledger.record(SERVER, self.site, message, data, keep=keep)
        asked, opened = take_out(message)
        if GROUP_KEY in message.meta:
            self._join(message.meta[GROUP_KEY])
        self._follow(opened)
        self._make_model()
        answer = self._perform(asked)
        if "round" in message.meta:
            answer = Message(answer.kind, {**answer.meta, "round": message.meta["round"]}, answer.arrays)
        encoded = answer.to_buffer()
        self.ledger.record(self.site, SERVER, answer, encoded)
        return encoded

    def _follow(self, opened: dict[int, Message]) -> None:
        try:
            new = self._guard.follow(opened)
        except Exception:
            self._memory.keep("guard", self._guard.save())  # else the plan, sent again, would begin what has ended
            raise
        for published in new.values():
            self._memory.add_sum(published)

    def _perform(self, message: Message) -> Message:
        if message.kind in TASKS:
            return self._contribute(message)
        steps = {DESCRIBE: self._describe, SET_UP: self._set_up, CORRECT: self._correct}
        answer = steps.get(message.kind, self._contributor.answer)(message)
        self._memory.keep("membership", self._contributor.save())
        return answer

    def _contribute(self, message: Message) -> Message:
        """What this site adds to the sum that comes next."""
        task = self._guard.admit(message)
        self._memory.keep("guard", self._guard.save())
        with self._randomness.in_use():
            arrays, weight = self._require_tasks().perform(task)
        self._guard.note_own(task.number, arrays, weight)
        answer = self._contributor.contribute(Contribution(arrays, weight, task.number, task.group), message)
        self._memory.keep("membership", self._contributor.save())  # over which sites the sum may be open from now on
        return add_sketch(answer, task)

    def resume(self, run: str) -> None:
        """Take part in a run again after the site's process was restarted, from what the site has kept of it.

        Nothing is answered or entered into the ledger. The site's cells are split as before; its history begins anew.

        Raises
        ------
        CheckpointError
            What was kept is damaged.
        PolicyError
            The run has ended at this site.
        ValueError
            Nothing was kept of this run.
        """
        memory = RunMemory(None if self._memories is None else self._memories / run)
        plan, set_up = memory.recall_message("plan"), memory.recall_message("set-up")
        if plan is None or set_up is None:
            raise ValueError(f"site {self.site!r} has kept nothing of run {run}: begin anew")
        self._guard = self._make_guard()
        self._guard.agree(Plan.from_message(plan))
        self._seed = int(memory.recall("seed") or self._seed)
        self._build(SetUp.from_message(set_up))
        self._contributor.restore(memory.recall("membership") or b"")
        self._guard.restore(memory.recall("guard") or self._guard.save())
        self._guard.follow(dict(enumerate(memory.sums(), start=1)))
        self._make_model()
        self._memory = memory
        logger.warning("site %r takes part in run %s again", self.site, run)

    @property
    def model(self) -> FederatedModel | None:
        """The site's model, once its genes are known."""
        return None if self._tasks is None else self._tasks.model

    @property
    def run(self) -> str:
        """Name of the run that the site takes part in."""
        return self._guard.require_plan().run

    def _make_guard(self) -> Guard:
        return Guard(self.site, self._contributor, self._policy, self._options, self._record)

    def forget(self) -> None:
        """Delete what was kept to take part in the run again."""
        self._memory.forget()

    def close(self) -> None:
        """Free the working copy, which scvi-tools would keep for good."""
        if self.model is not None:
            self.model.close()

    def _describe(self, message: Message) -> Message:
        """Agree to the plan, and say what the site has; or how far it has come, if it has taken part before."""
        plan = Plan.from_message(message)
        if self._knows(plan.run):
            self.resume(plan.run)
            if self._guard.plan != plan:
                raise PolicyError(f"run {plan.run} began with another plan")
            known = self._cells.describe(plan.settings)
            return replace(known, n_sums=self._guard.count_sums()).to_message()
        if plan.settings.reference == "landmarks":
            refuse_options_by_type(shrink=self._correction.shrink, unlabeled=self._correction.unlabeled)
        self._cells.check_sums(plan.settings.target_sum)
        check_size(self._adata.n_obs)
        described = self._cells.describe(plan.settings)
        self._guard.agree(plan)
        introduction = self._contributor.introduce(plan.fingerprint)
        self._memory.forget()  # of a plan that has come to nothing
        self._memory = RunMemory(None if self._memories is None else self._memories / plan.run)
        self._memory.keep("plan", message.to_buffer())
        self._memory.keep("seed", str(self._seed).encode())
        return replace(described, introduction=introduction).to_message()

    def _knows(self, run: str) -> bool:
        return self._memories is not None and RunMemory(self._memories / run).recall("set-up") is not None

    def _set_up(self, message: Message) -> Message:
        """Take what the sites have in common, and get to know the other sites."""
        if "plan" in message.meta:
            self._guard.agree_to_correct(plan := Plan.from_json(message.meta["plan"]))
            self._cells.check_sums(plan.settings.target_sum)
        self._build(terms := SetUp.from_message(message))
        sealed, prepared = self._meet(terms), self._contributor.prepare(message)
        self._memory.keep("set-up", message.to_buffer())
        protection = Protection.ENCRYPTED if sealed else Protection.PUBLIC if prepared else Protection.NONE
        return Message(SET_UP, {"protection": protection, "sealed": sealed}, prepared)

    def _build(self, terms: SetUp) -> None:
        plan = self._guard.require_plan()
        if plan.workflow == "training":
            self._guard.begin(terms, self._cells.n_cells_at_most)
        plan.settings.check_size(plan.settings.count_genes(len(terms.genes)))
        self._randomness = Randomness(self._seed)
        if plan.workflow == "correction" and plan.settings.genes == "intersection":
            lacks_genes(self._adata.var_names, terms.genes, self._correction.max_missing_genes)
        self._tasks = SiteTasks(
            self._cells, plan.settings, self._options.max_update_norm, self._accelerator, self.history
        )
        self._make_model(terms.genes if plan.workflow == "correction" else ())

    def _make_model(self, genes: Sequence[str] = ()) -> None:
        """Make the model, if there is none yet and its genes are known: these, or those that the program has found."""
        program, tasks = self._guard.program, self._tasks
        genes = genes if program is None else program.genes
        if tasks is None or tasks.model is not None or not genes:
            return
        with self._randomness.in_use():
            tasks.make_model(genes, pad=program is None or self._settings.genes == "union")
            if program is not None:
                tasks.choose_cells()  # now: so they are the same after a restart

    def _meet(self, terms: SetUp) -> dict[str, str]:
        """Get to know the other sites; what is returned is for them."""
        plan = self._guard.require_plan()
        if plan.workflow != "training":
            return {}
        least = (plan.settings if self._policy is None else self._policy).least_of(len(plan.sites))
        return self._contributor.meet(terms.fingerprint, terms.introductions, least)

    def _join(self, sealed: str) -> None:
        self._guard.require_plan()
        self._contributor.join(sealed)
        self._memory.keep("membership", self._contributor.save())

    def _correct(self, message: Message) -> Message:
        """Correct this site's cells, with what the run has found or, in a correction, with what was sent."""
        program = self._guard.require_end()
        weights = dict(message.arrays) if program is None else program.weights
        found = read_references(message.meta["references"]) if program is None else program.references
        model = self._require_tasks().load_result(weights)
        model.references = replace(found, labels=tuple(self._cells.own_names(found.labels)))
        # what training has cost isn't thrown away because nothing aligns the site
        options = self._correction if program is None else replace(self._correction, allow_unaligned=True)
        self.corrected = correct_cells(model, self._cells, self._settings, options)
        self._cells.explain_moves(self.corrected, who=f"site {self.site!r}: ")
        self._cells.warn_of_hashes(self.corrected, found.labels, who=f"site {self.site!r}: ")
        return Message(CORRECT, {"done": True})

    def _require_tasks(self) -> SiteTasks:
        if self._tasks is None:
            raise PolicyError(f"site {self.site!r} has no model yet: the server must send its settings first")
        return self._tasks

    @property
    def _settings(self) -> FederationSettings:
        return self._guard.require_plan().settings
