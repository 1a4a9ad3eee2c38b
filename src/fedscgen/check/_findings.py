"""What somebody should know before sites train, in sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import pandas as pd

from fedscgen._normalize import SUM_TOLERANCE, contradicts
from fedscgen._spelling import find_like_batches, find_like_labels, is_unknown_id
from fedscgen._words import TURN, TURNED, list_names, means_no_label, quantity
from fedscgen.prepare import find_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedscgen.check._check import Checked
    from fedscgen.check._site import Site

Weight = Literal["obstacle", "doubt", "note"]

_LEAST_OVERLAP = 0.5
_MANY_GENES = 5000
_ENSEMBL = r"^(ENS[A-Z]*G)\d{11}"
_NUMBER = re.compile(r"\d+(\.0)?")


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


def judge(checked: Checked) -> Iterator[Finding]:
    """All that is to be said of what a check has found."""
    yield from _judge_consent(checked)
    yield from _judge_expression(checked)
    yield from _judge_genes(checked)
    yield from _judge_batches(checked)
    yield from _judge_labels(checked)
    yield from _judge_names(checked)


def _judge_consent(checked: Checked) -> Iterator[Finding]:
    for name, reason in checked.left_out.items():
        yield Finding("obstacle", f"{name} takes no part: {reason}")
    for site in checked.sites:
        for objection in site.objections:
            yield Finding("obstacle", f"{site.name} would refuse: {objection}")


def _judge_expression(checked: Checked) -> Iterator[Finding]:
    for site in checked.sites:
        low, median, high = site.sums
        who, target = f"{site.name}: ", checked.target_sum
        if site.lost:
            yield Finding("doubt", f"{who}{site.lost}")
        if not site.values.finite:
            yield Finding("obstacle", f"{who}expression holds NaN or inf: remove or repair such values")
        elif site.values.looks_raw:
            yield Finding("obstacle", f"{who}raw counts instead of log-normalised expression: run fedscgen prepare")
        elif site.values.lowest < 0:
            yield Finding("obstacle", f"{who}negative values, as of scaled expression: run fedscgen prepare on counts")
        elif high - low <= SUM_TOLERANCE * high and abs(median / target - 1) > SUM_TOLERANCE:
            yield Finding(
                "obstacle",
                f"{who}normalised to {median:,.0f} molecules per cell, and the federation to {target:,.0f}: run "
                f"fedscgen prepare --target-sum {target:g}",
            )
        elif contradicts(site.sums, target):
            yield Finding(
                "doubt" if checked.settings.target_sum is None else "obstacle",
                f"{who}a cell's expm1 sums to {low:,.0f} to {high:,.0f}, which isn't {target:,.0f} for all: ask "
                "how it was normalised, or run fedscgen prepare on the counts",
            )
        elif median < target / 2:
            yield Finding(
                "note",
                f"{who}a cell's expm1 sums to {median:,.0f} of {target:,.0f}: genes were left out after "
                "normalising, or it was normalised to less",
            )


def _judge_genes(checked: Checked) -> Iterator[Finding]:
    sites = [site for site in checked.sites if not site.transposed]
    kinds = {site.name: find_namespace(map(str, site.genes)) for site in sites}
    for site in checked.sites:
        if site.transposed:
            yield Finding(
                "obstacle",
                f"{site.name}: {TURNED}, as a row is called {site.transposed!r}: {TURN} ({site.name})",
            )
        if site.repeated_cell:
            yield Finding(
                "obstacle", f"{site.name}: cell {site.repeated_cell!r} is there twice: give each cell a name of its own"
            )
        if not site.genes.is_unique:
            first = site.genes[site.genes.duplicated()][0]
            yield Finding(
                "obstacle", f"{site.name}: gene {first!r} is there twice: run fedscgen prepare, which sums it"
            )
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
        yield Finding(
            "obstacle",
            f"genes go by different names ({listed}): run fedscgen prepare (or add --prepare) with "
            "--genes symbol at all sites, and with --gene-table where the data hold names of one kind alone",
        )
        return
    for one, other in combinations(sites, 2):
        share = _find_overlap(one.genes, other.genes)
        if share >= _LEAST_OVERLAP:
            yield from _judge_case(one, other)
            continue
        who = f"{one.name} and {other.name} share {share:.0%} of their genes"
        if _are_of_two_species(one.genes, other.genes):
            first = f"{one.genes[0]!r} and {other.genes[0]!r}"
            yield Finding(
                "obstacle",
                f"{who}, which look like those of two species ({first}): name orthologs alike, or "
                "if they are of one, prepare them with its gene table and --ignore-case",
            )
        else:
            yield Finding("obstacle" if share == 0 else "doubt", f"{who}: prepare both with one gene table")
    network = checked.settings.spell_out().model
    n_latent = int(network.get("n_latent", 0)) if network.get("linear_path") else 0
    if len(checked.sites) > 1 and 0 < checked.n_genes < n_latent:
        yield Finding(
            "obstacle",
            f"{checked.n_genes} genes are fewer than the model's {n_latent} dimensions: see that genes go by one "
            "name, or choose a smaller n_latent",
        )
    if checked.n_genes > _MANY_GENES:
        yield Finding(
            "doubt",
            f"{checked.n_genes:,} genes are many to train on: have the sites choose those that vary most, with "
            "n_top_genes=2000 (fedscgen simulate --n-top-genes 2000)",
        )


def _find_overlap(one: pd.Index, other: pd.Index) -> float:
    return len(one.intersection(other)) / max(1, min(len(one), len(other)))


def _judge_case(one: Site, other: Site) -> Iterator[Finding]:
    """Genes that two sites don't share as they write them in other case."""
    own, others = one.genes.difference(other.genes), other.genes.difference(one.genes)
    spelled = {str(name).casefold(): str(name) for name in others}
    pairs = [(str(name), spelled[str(name).casefold()]) for name in own if str(name).casefold() in spelled]
    if pairs:
        yield Finding(
            "doubt",
            f"{one.name} and {other.name} write {quantity(len(pairs), 'gene')} in other case, such as {pairs[0][0]!r} "
            f"and {pairs[0][1]!r}, and don't share these: prepare both with one gene table and --ignore-case",
        )


def _are_of_two_species(one: pd.Index, other: pd.Index) -> bool:
    """Whether they differ by case alone, as symbols of mouse and human, or by the species in Ensembl ids."""
    texts = [pd.Series(names.astype(str)) for names in (one, other)]
    prefixes = [set(text.str.extract(_ENSEMBL, expand=False).dropna()) for text in texts]
    if all(prefixes):
        return prefixes[0] != prefixes[1]
    return _find_overlap(*(pd.Index(text.str.casefold().unique()) for text in texts)) >= _LEAST_OVERLAP


def _judge_names(checked: Checked) -> Iterator[Finding]:
    for row in () if checked.rehearsal is None else checked.rehearsal.find_doubtful().itertuples():
        yield Finding(
            "doubt",
            f"cells that the classifier calls {row.cell_type!r} may be others: {row.right} of {row.called} were "
            "right where labels were hidden",
        )
    for row in () if checked.rehearsal is None else checked.rehearsal.find_nameless().itertuples():
        yield Finding(
            "doubt",
            f"{row.cells - row.named} of {row.cells} cells of {row.cell_type!r} whose labels were hidden got no name: "
            "if types like it go by several names, so that each is one site's alone, name these alike in labels.toml",
        )


def _judge_strangers(checked: Checked) -> Iterator[Finding]:
    """Sites whose labels tell nothing, where others' do: a training refuses them."""
    for site in checked.sites if checked.common_types else ():
        names = checked.reports[site.name]
        alone = names and not site.n_unlabeled and not set(names) & set(checked.common_types)
        if alone and site.name not in checked.settings.unaligned_sites:
            yield Finding(
                "obstacle",
                f"{site.name}: no other site shares any of its types ({', '.join(map(repr, names[:5]))}): name "
                f"them alike in labels.toml, or have it take part as it is (--unaligned-site {site.name})",
            )


def _find_strange_ids(checked: Checked) -> list[str]:
    """Ids of types that one site alone reports, where others may have a name for it."""
    alone = {name for names in checked.reports.values() for name in names} - set(checked.common_types)
    return sorted(name for name in alone if len(checked.sites) > 1 and is_unknown_id(name))


def _judge_map(checked: Checked) -> Iterator[Finding]:
    """Names that a label map has for nobody, and types that are called like clusters."""
    for name in checked.unused_names:
        yield Finding("doubt", f"the label map has a common name for {name!r}, which no site calls a type: misspelt?")
    numbered = {site.name: [name for name in site.counts if _NUMBER.fullmatch(str(name))] for site in checked.sites}
    numbered = {site: names for site, names in numbered.items() if names}
    for site, names in numbered.items():
        yield Finding(
            "obstacle" if len(numbered) > 1 else "doubt",
            f"{site}: cell types are numbers ({list_names(names)}), as clusters have, which mean another type at every "
            "site: name the column with their names (--labels-key), or have the site name them",
        )


def _say_where(checked: Checked, site: Site) -> str:
    """Where labels were sought, if that is known."""
    key = checked.options.labels_key
    if not site.exact or key is None:
        return ""
    return f" in {key!r}" + ("" if key in site.columns else f", since there is no such column; {_list_columns(site)}")


def _list_columns(site: Site) -> str:
    return f"there are {list_names(site.columns)}" if site.columns else "there is none at all"


def _judge_batches(checked: Checked) -> Iterator[Finding]:
    asked = checked.options.batch_key or ()
    asked = (asked,) if isinstance(asked, str) else asked
    for key in asked:
        for site in checked.sites:
            if site.exact and key not in site.columns:
                yield Finding(
                    "note",
                    f"{site.name}: there is no column {key!r}, so its cells are alike in it; {_list_columns(site)}",
                )
                others = [name for name in site.columns if name not in asked]
                yield from _judge_columns(site, key, find_like_batches(others, key), "batches")


def _judge_columns(site: Site, key: str, found: list[str], what: str) -> Iterator[Finding]:
    """Columns of a site that may be meant by one that it lacks."""
    for name in found:
        yield Finding(
            "doubt",
            f"{site.name}: its column {name!r} may hold the {what} that are sought in {key!r}: if so, add --column "
            f"{name}={key}, or name it in the site's configuration",
        )


def _judge_labels(checked: Checked) -> Iterator[Finding]:
    for own, common in checked.proposal.sure.items():
        yield Finding(
            "obstacle", f"{own!r} looks like {common!r}: accept it in labels.toml, or it stays a type of its own"
        )
    for own, common in checked.proposal.doubtful.items():
        yield Finding("doubt", f"{own!r} differs from {common!r} by a few letters: is it one type?")
    for own in _find_strange_ids(checked):
        yield Finding(
            "doubt",
            f"{own!r} is an id of the Cell Ontology that the table of synonyms lacks: if another site has the type "
            "by name, write it into labels.toml",
        )
    for site in checked.sites:
        if site.n_unlabeled and site.own_labels and not site.names_unlabeled:
            n_cells = site.count(site.n_unlabeled)
            yield Finding(
                "obstacle", f"{site.name}: {n_cells} cells have no label: name an unlabeled category to keep them"
            )
        elif site.n_unlabeled == site.n_cells:
            how = "the classifier names its cells" if checked.common_types else "no site's labels help"
            yield Finding("note", f"{site.name}: no cell has a label{_say_where(checked, site)}; {how}")
            key = checked.options.labels_key
            if site.exact and key is not None and key not in site.columns:
                yield from _judge_columns(site, key, find_like_labels(site.columns), "cell types")
        if site.n_rare:
            yield Finding("note", f"{site.name}: {site.n_rare} types of too few cells are not told by name")
        for name in filter(means_no_label, site.counts.columns):
            n_cells = site.count(int(site.counts[name].sum()))
            yield Finding(
                "doubt",
                f"{site.name}: {n_cells} cells are {name!r}, which counts as a type: if it means that there is no "
                "label, name it as unlabeled category",
            )
    yield from _judge_map(checked)
    yield from _judge_strangers(checked)
    if len(checked.sites) > 1 and not checked.common_types and any(site.own_labels for site in checked.sites):
        yield Finding("obstacle", "no cell type is reported by enough sites: cells would move without labels")
    if len(checked.sites) < checked.options.min_holders and len(checked.sites) > 1:
        yield Finding("obstacle", f"min_holders={checked.options.min_holders} is more than there are sites")
    fates = checked.tell_fates()
    few = fates[fates["corrected"].str.contains("too few")]
    for row in few.itertuples():
        yield Finding("note", f"{row.site}: {row.cells} cells of {row.cell_type!r} are corrected {row.corrected}")
