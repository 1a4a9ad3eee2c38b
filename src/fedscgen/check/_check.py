"""What sites have in common, and what stands in the way of a federation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from fedscgen._batches import find_held
from fedscgen.check._findings import Finding, judge
from fedscgen.check._rehearsal import Rehearsal, Sample, rehearse
from fedscgen.check._site import Site, propose_by_meaning
from fedscgen.federation import FederationSettings, SiteOptions
from fedscgen.prepare import LabelProposal, find_transposed, propose_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

USUAL_SUM = 1e4
"""Molecules that cells are normalised to if nobody says otherwise."""


@dataclass(frozen=True)
class Told:
    """What a site has been told of the others, where it looks at itself alone.

    Parameters
    ----------
    common
        Cell types that enough sites hold, of the site's own by its names.
    n_genes
        That the sites have in common.
    renamed
        Names that others use, by the site's own.
    """

    common: Sequence[str]
    n_genes: int
    renamed: Mapping[str, str]


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
    rehearsal
        How sure the names of cells without a label will be, if there are such cells and it could be tried.
    told
        What one site has been told of the others.
    unused_names
        That a label map gives a common name, though none of several sites has them.
    """

    sites: tuple[Site, ...]
    settings: FederationSettings
    options: SiteOptions
    target_sum: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None
    told: Told | None = None
    unused_names: tuple[str, ...] = ()

    @cached_property
    def genes(self) -> list[str]:
        """That all sites hold or, with ``genes="union"``, that any does; of a ``gene_list``, if there is one."""
        first, *others = [site.genes for site in self.sites]
        for names in others:
            first = first.union(names) if self.settings.genes == "union" else first.intersection(names)
        return list(first.intersection(list(self.settings.gene_list)) if self.settings.gene_list else first)

    @property
    def n_common(self) -> int:
        """How many they are."""
        return len(self.genes) if self.told is None else self.told.n_genes

    @property
    def n_genes(self) -> int:
        """How many of them the model is trained on."""
        return self.settings.count_genes(self.n_common)

    @cached_property
    def reports(self) -> dict[str, list[str]]:
        """Cell types that each site would tell the names of."""
        return {site.name: site.find_reported(self.options.min_cells) for site in self.sites}

    @cached_property
    def common_types(self) -> list[str]:
        """Cell types that enough sites hold, so that their labels help."""
        if self.told is not None:
            return sorted(self.told.common)
        held = pd.Series([name for names in self.reports.values() for name in names], dtype=object).value_counts()
        return sorted(held.index[held >= self.options.min_holders])

    @cached_property
    def proposal(self) -> LabelProposal:
        """Cell types that seem to be one."""
        if self.told is not None:
            return LabelProposal(self.told.renamed)
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
        return sorted(judge(self), key=lambda one: ("obstacle", "doubt", "note").index(one.weight))

    @property
    def has_unlabeled(self) -> bool:
        """Whether some cells have no label."""
        return any(site.n_unlabeled for site in self.sites)

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


def check_sites(
    sites: Mapping[str, AnnData],
    *,
    settings: FederationSettings | None = None,
    options: SiteOptions | None = None,
    label_map: Mapping[str, str] | None = None,
    target_sum: float | None = None,
    min_confidence: float = 0.5,
) -> Checked:
    """Look at sites' cells before anybody trains. Nothing in them is changed.

    Where some cells have no label and nothing stands in the way, the federation's classifier is tried on labels that
    are hidden, along principal components of at most 3,000 cells of a site, and 12,000 of all.

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
    min_confidence
        Probability from which a cell without a label gets a name.

    Raises
    ------
    KeyError, TypeError, ValueError
        There is no site, or none can be looked at, such as without the layer; the message is about the first. Where
        others can, it is an obstacle.
    """
    if not sites:
        raise ValueError("no site to check: name at least one file")
    options = SiteOptions() if options is None else options
    held = find_held(sites, options.batch_key)
    own, label_map = {name: replace(options, batch_key=held[name]) for name in sites}, label_map or {}
    looked, left_out = _look_at(sites, own, label_map)
    settings = FederationSettings() if settings is None else settings
    used = {label for site in looked for label in site.own_labels}
    checked = Checked(
        looked,
        settings,
        options,
        target_sum or settings.target_sum or USUAL_SUM,
        left_out=left_out,
        unused_names=tuple(name for name in label_map if name not in used and len(sites) > 1),
    )
    genes = [gene for gene in checked.genes if all(gene in site.genes for site in looked)]
    if not (checked.has_unlabeled and checked.common_types and genes) or checked.n_obstacles:
        return checked
    samples = {name: Sample.of(adata, own[name], label_map, genes, len(sites)) for name, adata in sites.items()}
    return replace(checked, rehearsal=rehearse(samples, checked.common_types, settings, options, min_confidence))


def _look_at(
    sites: Mapping[str, AnnData], options: Mapping[str, SiteOptions], label_map: Mapping[str, str]
) -> tuple[tuple[Site, ...], dict[str, str]]:
    """What is known of each site, and why it isn't of others."""
    looked, errors, transposed = [], {}, find_transposed(sites)
    for name, adata in sites.items():
        try:
            site = Site.of(name, adata, options[name], label_map)
            looked.append(replace(site, transposed=transposed.get(name, "")))
        except (KeyError, TypeError, ValueError) as error:
            errors[name] = error
    if not looked:
        raise next(iter(errors.values()))
    return tuple(looked), {name: str(error.args[0]) for name, error in errors.items()}
