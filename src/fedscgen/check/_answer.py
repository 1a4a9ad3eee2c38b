"""A check over a transport, at a site: what it tells of its cells, and what it makes of the names that others use."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fedscgen._data import ExpressionSummary
from fedscgen._normalize import contradicts, sum_cells
from fedscgen._spelling import find_meaning
from fedscgen._types import Message
from fedscgen._words import TURN, TURNED
from fedscgen.check._check import USUAL_SUM, Checked, Told
from fedscgen.check._page import CHECK_PAGE, write_check_page
from fedscgen.check._site import Site
from fedscgen.federation import CHECK, SERVER, TELL, LabelNames, Plan, PolicyError, SitePolicy, check_question
from fedscgen.prepare import LabelProposal, find_transposed, write_label_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from fedscgen._types import Buffer
    from fedscgen.federation import PrivacyLedger, SiteOptions

logger = logging.getLogger(__name__)

LABEL_MAP = "labels.toml"
"""File with the proposed names of cell types."""

_SHARES = (0.05, 0.5, 0.95)  # as a smallest or largest sum would be a single cell's
_DIGITS = 3
_KINDS: dict[str, ExpressionSummary] = {
    "logarithms": ExpressionSummary(0.0, 1.0, whole=False, finite=True),
    "counts": ExpressionSummary(0.0, 1000.0, whole=True, finite=True),
    "negative": ExpressionSummary(-1.0, 1.0, whole=False, finite=True),
    "not finite": ExpressionSummary(0.0, 1.0, whole=False, finite=False),
}


class SiteCheck:
    """A site that answers the two questions of a check, and no other.

    Parameters
    ----------
    site
        The site's name.
    adata
        Its cells, prepared or not. They are never changed.
    options
        What is where in them.
    ledger
        Where every message is recorded.
    label_map
        The federation's names of cell types by the site's own.
    label_salt
        See :class:`fedscgen.federation.Client`.
    policy
        What the site agrees to. None: to anything.
    folder
        Where ``labels.toml`` goes, with the site's own names of types that others spell differently, and
        ``check.html``, a page about its own cells. None: nowhere.
    objections
        What else stands in the way of a training at this site; the coordinator is told.

    Attributes
    ----------
    finished
        Whether all is said.
    """

    def __init__(
        self,
        site: str,
        adata: AnnData,
        options: SiteOptions,
        ledger: PrivacyLedger,
        *,
        label_map: Mapping[str, str] | None = None,
        label_salt: str | None = None,
        policy: SitePolicy | None = None,
        folder: Path | None = None,
        objections: Sequence[str] = (),
    ) -> None:
        self.site = site
        self.finished = False
        self._options = options
        self._ledger = ledger
        self._label_map = {} if label_map is None else dict(label_map)
        self._names = LabelNames(label_salt)
        self._policy = policy
        self._folder = folder
        turned = (f"its data hold {TURNED}: {TURN}",)
        self._objections = (*objections, *(turned if find_transposed({site: adata}) else ()))
        self._adata = adata
        self._cells = Site.of(site, adata, options, self._label_map, _SHARES)
        self._plan: Plan | None = None

    def handle(self, data: Buffer) -> memoryview:
        """Answer a message in the wire format; both are entered into the ledger.

        Raises
        ------
        WireFormatError
            ``data`` is no message, or none of its kind.
        PolicyError
            It isn't one of a check's, or the site takes part in none.
        """
        message = Message.from_bytes(data)
        check_question(message)
        self._ledger.record(SERVER, self.site, message, data, keep=message.kind == CHECK)
        steps: dict[str, Callable[[Message], Message]] = {CHECK: self._describe, TELL: self._compare}
        if message.kind not in steps:
            raise PolicyError(f"the coordinator announced a check, in which nobody asks for {message.kind!r}")
        answer = steps[message.kind](message)
        encoded = answer.to_buffer()
        self._ledger.record(self.site, SERVER, answer, encoded)
        return encoded

    def close(self) -> None:
        """Nothing has to be freed."""

    def _describe(self, message: Message) -> Message:
        """What the site would tell in a training, and what else stands in the way of one."""
        plan = Plan.from_message(message)
        if plan.workflow != "check" or self.site not in plan.sites:
            raise PolicyError(
                f"a {plan.workflow} of {', '.join(plan.sites)} is no check that {self.site!r} takes part in"
            )
        if self._policy is not None:
            self._policy.check_workflow(plan.workflow)
        cells, settings = self._cells, plan.settings
        reported = cells.find_reported(self._options.min_cells)
        on_the_wire = self._names.on_the_wire
        meanings = {on_the_wire(name): on_the_wire(find_meaning(name)) for name in sorted(reported)}
        kind = _find_kind(cells.values)
        listed = set(settings.gene_list or cells.genes)
        meta = {
            "genes": list(dict.fromkeys(str(name) for name in cells.genes if name in listed)),
            "labels": sorted(meanings),
            "meanings": {name: meanings[name] for name in sorted(meanings)} if self._names.are_hashed else {},
            "hashed": self._names.are_hashed,
            "n_rare": cells.counts.shape[1] - len(reported),
            "labelled": "none" if cells.n_unlabeled == cells.n_cells else "some" if cells.n_unlabeled else "all",
            "names_unlabeled": cells.names_unlabeled,
            "n_cells_at_most": 1 << (cells.n_cells - 1).bit_length(),
            "expression": kind,
            "sums": [float(f"{value:.{_DIGITS}g}") for value in cells.sums] if kind == "logarithms" else [],
            "min_cells": self._options.min_cells,
            "min_holders": self._options.min_holders,
            "objections": self._find_objections(plan),
        }
        self._plan, self._cells = plan, replace(cells, objections=tuple(meta["objections"]))
        return Message(CHECK, meta)

    def _find_objections(self, plan: Plan) -> list[str]:
        """What the site would refuse of a training as the plan has it."""
        settings, objections = plan.settings, [*self._objections, *self._cells.objections]
        for consent in [] if self._policy is None else _list_consents(self._policy, plan):
            try:
                consent()
            except PolicyError as error:
                objections.append(str(error))
        if settings.target_sum is not None and not self._fits(settings.target_sum):
            objections.append(
                f"its cells were not normalised to {settings.target_sum:,g} molecules: run fedscgen prepare "
                f"--target-sum {settings.target_sum:g} there"
            )
        return objections

    def _fits(self, target_sum: float) -> bool:
        """Whether the cells may have been normalised to that; of what holds no logarithms something else is said."""
        is_logged = _find_kind(self._cells.values) == "logarithms"
        return not is_logged or not contradicts(sum_cells(self._options.keys.expression_of(self._adata)), target_sum)

    def _compare(self, message: Message) -> Message:
        """Propose common names of the site's own types; names of few cells, which it has told nobody, among them."""
        if self._plan is None:
            raise PolicyError("a check begins with the question what the site has")
        names, renamed = message.meta["names"], message.meta["map"]
        find = self._rename_by_hash if self._names.are_hashed else _rename_by_meaning
        common = {own: self._label_map.get(own, own) for own in self._cells.own_labels}
        found = {own: find(name, names, renamed) for own, name in common.items()}
        found = {own: name for own, name in found.items() if name != common[own]}
        if found and self._folder is not None:
            write_label_map(self._folder / LABEL_MAP, LabelProposal({**self._label_map, **found}))
        if self._folder is not None:
            told = Told(self._find_common(message.meta["common"]), int(message.meta["n_genes"]), found)
            settings, secure = self._plan.settings, self._plan.aggregator
            own = Checked((self._cells,), settings, self._options, settings.target_sum or USUAL_SUM, told=told)
            write_check_page(self._folder / CHECK_PAGE, own, secure=secure)
        logger.info("site %r: %d of its types seem to have another name elsewhere", self.site, len(found))
        self.finished = True
        return Message(TELL, {"done": True})

    def _find_common(self, common: Sequence[str]) -> list[str]:
        """Types that enough sites hold; where names are hashed, of this site's own by their names."""
        own = {self._names.on_the_wire(str(name)): str(name) for name in self._cells.counts.columns}
        return [own.get(name, name) for name in common]

    def _rename_by_hash(self, name: str, names: Sequence[str], renamed: Mapping[str, str]) -> str:
        """What a name means, if it is one of several for that: no site can read the others', and all know this one."""
        own = self._names.on_the_wire(name)
        return find_meaning(name) if own in renamed or own in renamed.values() else name


def _list_consents(policy: SitePolicy, plan: Plan) -> list[Callable[[], None]]:
    """What raises if the policy doesn't allow a training as the plan has it."""
    return [
        partial(policy.check_workflow, "training"),
        partial(policy.check, plan.aggregator, reveals_counts=plan.reveals_counts, n_sites=len(plan.sites)),
        partial(policy.check_genes, plan.settings.genes),
    ]


def read_answer(name: str, answer: Message) -> Site:
    """What a site has told.

    Parameters
    ----------
    name
        The site's.
    answer
        Its answer, of which the meta is checked.
    """
    meta = answer.meta
    n_cells, few = int(meta["n_cells_at_most"]), int(meta["min_cells"])
    n_unlabeled = {"all": 0, "some": 1, "none": n_cells}[meta["labelled"]]
    return Site(
        name,
        n_cells,
        pd.Index(meta["genes"], dtype=object),
        pd.DataFrame([[few] * len(meta["labels"])], columns=pd.Index(meta["labels"], dtype=object)),
        (n_cells,),
        n_unlabeled,
        tuple(meta["labels"]),
        _KINDS[meta["expression"]],
        tuple(meta["sums"]) if len(meta["sums"]) == len(_SHARES) else (np.nan,) * 3,
        names_unlabeled=meta["names_unlabeled"],
        exact=False,
        meanings=meta["meanings"],
        n_rare=int(meta["n_rare"]),
        objections=tuple(meta["objections"]),
    )


def _find_kind(values: ExpressionSummary) -> str:
    if not values.finite:
        return "not finite"
    if values.looks_raw:
        return "counts"
    return "negative" if values.lowest < 0 else "logarithms"


def _rename_by_meaning(name: str, names: Sequence[str], renamed: Mapping[str, str]) -> str:
    """The common name of what a name means, if others use one."""
    if name in renamed or name in names:
        return renamed.get(name, name)
    by_meaning = {find_meaning(other): renamed.get(other, other) for other in names}
    return by_meaning.get(find_meaning(name), name)
