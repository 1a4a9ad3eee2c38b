"""A site's program: it holds to its policy, and writes its results to its own disk."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from fedscgen._data import check_size
from fedscgen._files import create_whole, keep_private, write_whole
from fedscgen._output import try_writing, write_cells
from fedscgen._read_cells import read_cells
from fedscgen._types import Message, make_refusal
from fedscgen.check import SiteCheck
from fedscgen.deployment._aggregators import make_contributor
from fedscgen.deployment._introduction import INTRODUCTION, Proposal
from fedscgen.federation import CORRECT, DESCRIBE, SERVER, SET_UP, Client, PolicyError, PrivacyLedger
from fedscgen.prepare import add_common_labels, read_label_map

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from fedscgen._types import Buffer
    from fedscgen.deployment._config import SiteConfig

logger = logging.getLogger(__name__)

_OF_CORRECTION = (SET_UP, CORRECT)
_RUN = ".run"
_RUNS = "runs"
_RECORD = "asked.json"
_CORRECTED = "corrected.h5ad"


class Site:
    """Answers every message of one run, in the order in which they come.

    Parameters
    ----------
    config
        What the site has decided.
    folder
        Where this run's results go; it is made if there is none. What was agreed on is kept there too: after a restart
        the site goes on from it.

    Attributes
    ----------
    finished
        Whether the site has its results, or takes no part.
    """

    @keep_private()
    def __init__(self, config: SiteConfig, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.finished = False
        self._config = config
        self._folder = folder
        self._ledger = PrivacyLedger(folder / "ledger.csv")
        self._client: Client | SiteCheck | None = None
        self._workflow: str | None = None
        self._go_on()

    @keep_private()
    def answer(self, data: Buffer) -> Buffer:
        """The answer, or a refusal that says no more than the coordinator may know; the log has the reason.

        Parameters
        ----------
        data
            A message in the wire format.
        """
        kind = "a message"
        try:
            message = Message.from_bytes(data)
            kind = repr(message.kind)
            return self._introduce(message, data) if message.kind == INTRODUCTION else self._take_part(message, data)
        except PolicyError as error:
            logger.warning("refused %s: %s", kind, error)
            return self._send(make_refusal(str(error)))
        except Exception:
            logger.exception("could not answer %s", kind)
            reason = f"could not answer {kind}: the log of site {self._config.site!r} says why"
            return self._send(make_refusal(reason))

    def close(self) -> None:
        """Free the model's memory. What the run needs to go on stays on the disk."""
        if self._client is not None:
            self._client.close()

    def _introduce(self, message: Message, data: Buffer) -> Buffer:
        """Check what the coordinator has in mind against the policy, and the site's cells for what is wrong."""
        self._ledger.record(SERVER, self._config.site, message, data)
        proposal = Proposal.from_message(message)
        if (self._folder / _CORRECTED).exists():
            raise PolicyError("this run has come to its end at the site: begin another one")
        self.finished = True  # unless it takes part
        self.close()
        self._client = None
        self._client, self._workflow = self._make_client(proposal), proposal.workflow
        self.finished = False
        write_whole(self._path_of(message.kind), bytes(data))
        return self._send(Message(INTRODUCTION, {"site": self._config.site}))

    def _send(self, answer: Message) -> Buffer:
        data = answer.to_buffer()
        self._ledger.record(self._config.site, SERVER, answer, data)
        return data

    def _take_part(self, message: Message, data: Buffer) -> Buffer:
        if self._client is None:
            raise ValueError("the coordinator has not said yet what it has in mind")
        if self._workflow == "correction" and message.kind not in _OF_CORRECTION:
            raise PolicyError(f"the coordinator announced a correction, in which nobody asks for {message.kind!r}")
        answer = self._client.handle(data)
        if isinstance(self._client, SiteCheck):
            self._end_check(self._client)
            return answer
        if self._workflow == "training" and message.kind in (DESCRIBE, SET_UP):  # of a correction nothing is kept
            write_whole(self._path_of(_RUN), self._client.run.encode())
        if message.kind == CORRECT:
            self._write_results(self._client)
            self.finished = True
        return answer

    def _make_client(self, proposal: Proposal) -> Client | SiteCheck:
        config = self._config
        if proposal.sites and config.site not in proposal.sites:
            raise PolicyError(f"site {config.site!r} is not among the sites of this run")
        policy, aggregator = config.policy, config.policy.aggregators[0]
        policy.check_workflow(proposal.workflow)
        if proposal.workflow == "check":
            return self._make_check()
        if proposal.workflow == "training":
            policy.check(proposal.aggregator, reveals_counts=proposal.reveals_counts, n_sites=proposal.n_sites)
            aggregator = proposal.aggregator
        adata, options = read_cells(config.data), config.options
        if proposal.workflow == "training":
            check_size(adata.n_obs)
        try_writing(adata, self._folder)
        if config.label_map is not None and options.labels_key is not None:
            key = add_common_labels(adata, read_label_map(config.label_map), labels_key=options.labels_key)
            options = replace(options, labels_key=key)
        return Client(
            config.site,
            adata,
            make_contributor(aggregator, config),
            options,
            config.correction,
            accelerator=config.accelerator,
            seed=config.seed,
            label_salt=config.read_label_salt(),
            ledger=self._ledger,
            policy=replace(policy, aggregators=(aggregator,)),  # no plan may sum in another way than was introduced
            memory=config.output / _RUNS,
            record=config.output / _RECORD,
        )

    def _make_check(self) -> SiteCheck:
        config, adata = self._config, read_cells(self._config.data)
        return SiteCheck(
            config.site,
            adata,
            config.options,
            self._ledger,
            label_map=None if config.label_map is None else read_label_map(config.label_map),
            label_salt=config.read_label_salt(),
            policy=config.policy,
            folder=self._folder,
            objections=[] if self._can_write(adata) else ["its result could not be written: the site's log says why"],
        )

    def _can_write(self, adata: AnnData) -> bool:
        try:
            try_writing(adata, self._folder)
        except (OSError, ValueError):
            logger.exception("a result could not be written")
            return False
        return True

    def _end_check(self, check: SiteCheck) -> None:
        self.finished = check.finished
        if check.finished:
            self._path_of(INTRODUCTION).unlink(missing_ok=True)

    def _path_of(self, kind: str) -> Path:
        return self._folder / f".{kind}.message"

    def _go_on(self) -> None:
        """Continue where the site was before its process ended; a sum that was under way is lost."""
        introduction, run = self._path_of(INTRODUCTION), self._path_of(_RUN)
        if introduction.exists():
            proposal = Proposal.from_message(Message.from_bytes(introduction.read_bytes()))
            self._client, self._workflow = self._make_client(proposal), proposal.workflow
        if isinstance(self._client, Client) and run.exists():
            self._client.resume(run.read_text(encoding="ascii"))

    def _write_results(self, client: Client) -> None:
        """Write model/, history.csv and, last, corrected.h5ad; each appears when it is whole."""
        if client.corrected is None or client.model is None:
            raise ValueError("there is nothing to write: no cells were corrected")
        client.model.save(self._folder / "model", overwrite=True)
        write_whole(self._folder / "history.csv", pd.DataFrame(client.history).to_csv(index=False).encode())
        with create_whole(self._folder / _CORRECTED, overwrite=True, remedy="") as target:
            write_cells(client.corrected, target)
        client.forget()
        for kind in (INTRODUCTION, _RUN):
            self._path_of(kind).unlink(missing_ok=True)
        logger.info("site %r has its results in %s", self._config.site, self._folder)
