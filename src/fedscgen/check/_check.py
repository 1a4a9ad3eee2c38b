"""What sites have in common, and what stands in the way of a federation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import pandas as pd

from fedscgen._batches import find_held
from fedscgen._normalize import SUM_TOLERANCE, contradicts
from fedscgen._spelling import is_unknown_id
from fedscgen._words import means_no_label
from fedscgen.check._site import Site
from fedscgen.federation import FederationSettings, SiteOptions
from fedscgen.prepare import LabelProposal, find_namespace, propose_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData

Weight = Literal["obstacle", "doubt", "note"]

_LEAST_OVERLAP = 0.5
_MANY_GENES = 5000
USUAL_SUM = 1e4
"""Molecules that cells are normalised to if nobody says otherwise."""


@dataclass(frozen=True)
class Finding:
    """What somebody should know.

    Parameters
    ----------
    weight
        ``"obstacle"``: the result would be wrong or there would be none; ``"doubt"``: somebody has to look; ``"note"``.
    text
        A sentence, with the remedy if there is one.
    """

    weight: Weight
    text: str


@dataclass(frozen=True)
class Checked:
    """What a check has found.

    Parameters
    ----------
    sites
        What is known of each.
    settings, options
        What the sites do alike, and what is where in their data.
    target_sum
        Molecules that cells should be normalised to.
    left_out
        Why a site takes no part, by its name or address.
    """

    sites: tuple[Site, ...]
    settings: FederationSettings
    options: SiteOptions
    target_sum: float
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def genes(self) -> list[str]:
        """That all sites hold or, with ``genes="union"``, that any does; of a ``gene_list``, if there is one."""
        first, *others = [site.genes for site in self.sites]
        for names in others:
            first = first.union(names) if self.settings.genes == "union" else first.intersection(names)
        return list(first.intersection(list(self.settings.gene_list)) if self.settings.gene_list else first)

    @property
    def n_genes(self) -> int:
        """How many of them the model is trained on."""
        return self.settings.count_genes(len(self.genes))

    @cached_property
    def reports(self) -> dict[str, list[str]]:
        """Cell types that each site would tell the names of."""
        return {site.name: site.find_reported(self.options.min_cells) for site in self.sites}

    @cached_property
    def common_types(self) -> list[str]:
        """Cell types that enough sites hold, so that their labels help."""
        held = pd.Series([name for names in self.reports.values() for name in names], dtype=object).value_counts()
        return sorted(held.index[held >= self.options.min_holders])

    @cached_property
    def proposal(self) -> LabelProposal:
        """Cell types that seem to be one."""
        hashed = [site for site in self.sites if site.meanings]
        if hashed:
            return propose_by_meaning([site.meanings for site in hashed])
        return propose_labels({site.name: list(site.counts.columns) for site in self.sites})

    @cached_property
    def fates(self) -> pd.DataFrame:
        """One row per site and cell type: ``site``, ``cell_type``, ``cells`` and ``corrected``, how."""
        rows = []
        for site in self.sites:
            for label, n_cells in site.counts.sum().items():
                rows.append((site.name, label, int(n_cells), self._tell_fate(site.name, str(label))))
            if site.n_unlabeled:
                how = "named by the classifier, and moved by that" if self.common_types else "without labels"
                rows.append((site.name, "(no label)", site.n_unlabeled, how))
        return pd.DataFrame(rows, columns=["site", "cell_type", "cells", "corrected"])

    def tell_fates(self) -> pd.DataFrame:
        """The same, with text for numbers, as of some sites only the least is known."""
        count = {site.name: site.count for site in self.sites}
        told = [count[row.site](row.cells) for row in self.fates.itertuples()]
        return self.fates.assign(cells=told)

    @cached_property
    def findings(self) -> list[Finding]:
        """Obstacles first."""
        found = [
            *self._judge_consent(),
            *self._judge_expression(),
            *self._judge_genes(),
            *self._judge_labels(),
        ]
        return sorted(found, key=lambda one: ("obstacle", "doubt", "note").index(one.weight))

    @property
    def n_obstacles(self) -> int:
        """How many there are."""
        return sum(one.weight == "obstacle" for one in self.findings)

    def _tell_fate(self, site: str, label: str) -> str:
        if not self.common_types:
            return "without labels"
        if label in self.common_types:
            return "by its label" if label in self.reports[site] else "by its label; too few cells here to report it"
        reason = "too few cells to report it" if label not in self.reports[site] else "too few sites report it"
        return f"with its batch: {reason}"

    def _judge_consent(self) -> Iterator[Finding]:
        for name, reason in self.left_out.items():
            yield Finding("obstacle", f"{name} takes no part: {reason}")
        for site in self.sites:
            for objection in site.objections:
                yield Finding("obstacle", f"{site.name} would refuse: {objection}")

    def _judge_expression(self) -> Iterator[Finding]:
        for site in self.sites:
            low, median, high = site.sums
            who, target = f"{site.name}: ", self.target_sum
            if site.lost:
                yield Finding("doubt", f"{who}{site.lost}")
            if not site.values.finite:
                yield Finding("obstacle", f"{who}expression holds NaN or inf: remove or repair such values")
            elif site.values.looks_raw:
                yield Finding("obstacle", f"{who}raw counts instead of log-normalised expression: run fedscgen prepare")
            elif site.values.lowest < 0:
                yield Finding(
                    "obstacle", f"{who}negative values, as of scaled expression: run fedscgen prepare on counts"
                )
            elif high - low <= SUM_TOLERANCE * high and abs(median / target - 1) > SUM_TOLERANCE:
                yield Finding(
                    "obstacle",
                    f"{who}normalised to {median:,.0f} molecules per cell, and the federation to {target:,.0f}: run "
                    f"fedscgen prepare --target-sum {target:g}",
                )
            elif contradicts(site.sums, target):
                yield Finding(
                    "doubt" if self.settings.target_sum is None else "obstacle",
                    f"{who}a cell's expm1 sums to {low:,.0f} to {high:,.0f}, which isn't {target:,.0f} for all: ask "
                    "how it was normalised, or run fedscgen prepare on the counts",
                )
            elif median < target / 2:
                yield Finding(
                    "note",
                    f"{who}a cell's expm1 sums to {median:,.0f} of {target:,.0f}: genes were left out after "
                    "normalising, or it was normalised to less",
                )

    def _judge_genes(self) -> Iterator[Finding]:
        kinds = {site.name: find_namespace(map(str, site.genes)) for site in self.sites}
        for site in self.sites:
            if not site.genes.is_unique:
                first = site.genes[site.genes.duplicated()][0]
                yield Finding(
                    "obstacle", f"{site.name}: gene {first!r} is there twice: run fedscgen prepare, which sums it"
                )
        if len(set(kinds.values())) > 1:
            listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
            yield Finding(
                "obstacle", f"genes go by different names ({listed}): run fedscgen prepare --genes at all sites"
            )
            return
        for one, other in combinations(self.sites, 2):
            share = len(one.genes.intersection(other.genes)) / max(1, min(len(one.genes), len(other.genes)))
            if share < _LEAST_OVERLAP:
                yield Finding(
                    "obstacle" if share == 0 else "doubt",
                    f"{one.name} and {other.name} share {share:.0%} of their genes: prepare both with one gene table",
                )
        if self.n_genes > _MANY_GENES:
            yield Finding(
                "doubt",
                f"{self.n_genes:,} genes are many to train on: have the sites choose those that vary most, with "
                "n_top_genes=2000 (fedscgen simulate --n-top-genes 2000)",
            )

    def _judge_strangers(self) -> Iterator[Finding]:
        """Sites whose labels tell nothing, where others' do: a training refuses them."""
        for site in self.sites if self.common_types else ():
            names = self.reports[site.name]
            alone = names and not site.n_unlabeled and not set(names) & set(self.common_types)
            if alone and site.name not in self.settings.unaligned_sites:
                yield Finding(
                    "obstacle",
                    f"{site.name}: no other site shares any of its types ({', '.join(map(repr, names[:5]))}): name "
                    f"them alike in labels.toml, or have it take part as it is (--unaligned-site {site.name})",
                )

    def _find_strange_ids(self) -> list[str]:
        """Ids of types that one site alone reports, where others may have a name for it."""
        alone = {name for names in self.reports.values() for name in names} - set(self.common_types)
        return sorted(name for name in alone if len(self.sites) > 1 and is_unknown_id(name))

    def _judge_labels(self) -> Iterator[Finding]:
        for own, common in self.proposal.sure.items():
            yield Finding(
                "obstacle", f"{own!r} looks like {common!r}: accept it in labels.toml, or it stays a type of its own"
            )
        for own, common in self.proposal.doubtful.items():
            yield Finding("doubt", f"{own!r} differs from {common!r} by a few letters: is it one type?")
        for own in self._find_strange_ids():
            yield Finding(
                "doubt",
                f"{own!r} is an id of the Cell Ontology that the table of synonyms lacks: if another site has the type "
                "by name, write it into labels.toml",
            )
        for site in self.sites:
            if site.n_unlabeled and site.own_labels and not site.names_unlabeled:
                n_cells = site.count(site.n_unlabeled)
                yield Finding(
                    "obstacle", f"{site.name}: {n_cells} cells have no label: name an unlabeled category to keep them"
                )
            elif site.n_unlabeled == site.n_cells:
                how = "the classifier names its cells" if self.common_types else "no site's labels help"
                where = f" in {self.options.labels_key!r}" if site.exact else ""
                yield Finding("note", f"{site.name}: no cell has a label{where}; {how}")
            if site.n_rare:
                yield Finding("note", f"{site.name}: {site.n_rare} types of too few cells are not told by name")
            for name in filter(means_no_label, site.counts.columns):
                n_cells = site.count(int(site.counts[name].sum()))
                yield Finding(
                    "doubt",
                    f"{site.name}: {n_cells} cells are {name!r}, which counts as a type: if it means that there is no "
                    "label, name it as unlabeled category",
                )
        yield from self._judge_strangers()
        if len(self.sites) > 1 and not self.common_types and any(site.own_labels for site in self.sites):
            yield Finding("obstacle", "no cell type is reported by enough sites: cells would move without labels")
        if len(self.sites) < self.options.min_holders and len(self.sites) > 1:
            yield Finding("obstacle", f"min_holders={self.options.min_holders} is more than there are sites")
        fates = self.tell_fates()
        few = fates[fates["corrected"].str.contains("too few")]
        for row in few.itertuples():
            yield Finding("note", f"{row.site}: {row.cells} cells of {row.cell_type!r} are corrected {row.corrected}")


def propose_by_meaning(meanings: Sequence[Mapping[str, str]]) -> LabelProposal:
    """Types of one meaning and several names, where names and meanings are hashes.

    Parameters
    ----------
    meanings
        Of each site, the hash of the meaning by that of the name.
    """
    common: dict[str, str] = {}
    sure = {}
    for own in meanings:
        for name, meaning in own.items():
            if common.setdefault(meaning, name) != name:
                sure[name] = common[meaning]
    return LabelProposal(sure)


def check_sites(
    sites: Mapping[str, AnnData],
    *,
    settings: FederationSettings | None = None,
    options: SiteOptions | None = None,
    label_map: Mapping[str, str] | None = None,
    target_sum: float | None = None,
) -> Checked:
    """Look at sites' cells before anybody trains. Nothing in them is changed.

    Parameters
    ----------
    sites
        Cells of each site, by name; a site that is alone learns what is wrong with its own.
    settings
        What the sites will do alike. None: the defaults.
    options
        What is where in the data; where a site lacks the column of cell types, no cell of its has a label, and where it
        lacks a column of batches that others have, its cells are alike in it.
    label_map
        The federation's names of cell types by sites' own.
    target_sum
        Molecules that cells should be normalised to. None: those of the settings or, if they say nothing, 10,000.

    Raises
    ------
    KeyError
        No site has a column of batches, or one lacks the layer.
    ValueError
        There is no site.
    """
    if not sites:
        raise ValueError("no site to check: name at least one file")
    options = SiteOptions() if options is None else options
    held = find_held(sites, options.batch_key)
    looked = tuple(
        Site.of(name, adata, replace(options, batch_key=held[name]), label_map or {}) for name, adata in sites.items()
    )
    settings = FederationSettings() if settings is None else settings
    return Checked(looked, settings, options, target_sum or settings.target_sum or USUAL_SUM)
