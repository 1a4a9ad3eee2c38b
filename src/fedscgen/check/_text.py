"""A check in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.check._cost import expect_cost
from fedscgen.report.page import volume

if TYPE_CHECKING:
    import pandas as pd

    from fedscgen.check._check import Checked
    from fedscgen.check._rehearsal import Rehearsal

_MEGABIT = 1e6 / 8
_SPEED = 100  # megabits a second


def tell_cost(checked: Checked, secure: str) -> str:
    """What a run will cost each site, in a sentence."""
    if not checked.n_common:
        return "there is no gene in common to train on"
    try:
        cost = expect_cost(checked.settings, checked.n_common, secure)
    except ValueError as error:
        return str(error)
    minutes = (cost.sent + cost.received) / (_SPEED * _MEGABIT) / 60
    n_common, n_genes = checked.n_common, checked.n_genes
    each_round = f" ({volume(cost.per_round)} a round)" if checked.settings.n_rounds else ""
    chosen = "" if n_genes == n_common else f"{n_genes:,} of "
    return (
        f"{chosen}{n_common:,} genes, {cost.n_parameters:,} parameters: each site sends {volume(cost.sent)} in "
        f"{cost.n_messages} messages{each_round} and receives {volume(cost.received)}; "
        f"{minutes:.1f} minutes of transfer at {_SPEED} Mbit/s"
    )


def tell_shared(checked: Checked) -> list[str]:
    """What each site would tell the coordinator by name, in a sentence each."""
    return [
        f"{site.name} tells its {len(site.genes):,} gene names, {len(checked.reports[site.name])} cell types "
        f"({', '.join(checked.reports[site.name]) or 'none'}), and that it has at most "
        f"{1 << (site.n_cells - 1).bit_length():,} cells"
        for site in checked.sites
    ]


def tell_names(checked: Checked) -> list[str]:
    """How sure the names of cells without a label will be, in a sentence each; none if all have one."""
    if not checked.has_unlabeled:
        return []
    if checked.told is None and len(checked.sites) == 1:
        return ["That depends on the labels of the other sites: check the files of several together."]
    if not checked.common_types:
        return ["No cell gets a name, as no labels help."]
    if checked.told is not None or not all(site.exact for site in checked.sites):
        return [
            "Sites that check over their network don't find out, since nothing is summed. A run with the settings "
            '"components", in which nobody trains, tells each site in obs["fedscgen_confidence"]; where files may lie '
            "in one place, fedscgen check tries it."
        ]
    if checked.rehearsal is None:
        return ["This is tried once nothing stands in the way."]
    return [
        *(_tell_expected(*row) for row in checked.rehearsal.unlabeled.itertuples(index=False)),
        "Where all labels of a site were hidden, one site at a time:"
        if checked.rehearsal.whole_sites
        else "Where a fifth of a site's labels were hidden:",
        *(_tell_tried(*row) for row in checked.rehearsal.count("site").itertuples()),
        "Tried on some cells of each site, along principal components."
        + " Training names some more, most of all at a site without any label." * (checked.settings.n_rounds > 0),
    ]


def _tell_expected(site: str, n_cells: int, n_named: int, fewest: int, most: int, sure: float) -> str:
    share = n_named / n_cells
    low, high = f"{fewest / n_cells:.0%}", f"{most / n_cells:.0%}"
    spread = "" if low == high else f" ({low} to {high} in several trials)"
    certainty = f", with a mean probability of {sure:.2f}" if n_named else ""
    expected = f"{share:.0%}{spread} will get a name{certainty}; {1 - share:.0%} are unknown."
    return f"{site}: of the cells without a label, {expected}"


def _tell_tried(site: str, n_cells: int, n_named: int, n_right: int) -> str:
    right = f", and {n_right / n_named:.0%} of the names were right" if n_named else ""
    return f"{site}: {n_named / n_cells:.0%} of {n_cells:,} cells got a name{right}."


def tabulate_names(rehearsal: Rehearsal) -> pd.DataFrame:
    """What came of cells of each type whose labels were hidden, with words for columns."""
    return rehearsal.by_type.rename(
        columns={
            "cell_type": "cell type",
            "cells": "labels hidden",
            "named": "got a name",
            "right": "the right one",
            "called": "cells called so",
        }
    )


NOT_SHARED = (
    "Cells, their expression and names, counts by type, and types of too few cells stay at a site; means and weights "
    "leave it only as parts of sums, which a masked run opens over all sites alone."
)


def describe_check(checked: Checked, *, secure: str = "masked") -> str:
    """What a check has found, as text.

    Parameters
    ----------
    checked
        What :func:`check_sites` returned.
    secure
        How sums would be opened; see :func:`expect_cost`.
    """
    lines = [f"{one.weight}: {one.text}" for one in checked.findings] or ["nothing stands in the way"]
    lines += ["", "how cells will be corrected:", checked.tell_fates().to_string(index=False)]
    if names := tell_names(checked):
        lines += ["", "how sure names will be:", *names]
    if checked.rehearsal is not None:
        lines += [tabulate_names(checked.rehearsal).to_string(index=False)]
    lines += ["", "what would be shared:", *tell_shared(checked), NOT_SHARED, "", f"cost: {tell_cost(checked, secure)}"]
    return "\n".join(lines)
