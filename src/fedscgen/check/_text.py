"""A check in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.check._cost import expect_cost
from fedscgen.report.page import volume

if TYPE_CHECKING:
    from fedscgen.check._check import Checked

_MEGABIT = 1e6 / 8
_SPEED = 100  # megabits a second


def tell_cost(checked: Checked, secure: str) -> str:
    """What a run will cost each site, in a sentence."""
    if not checked.genes:
        return "there is no gene in common to train on"
    try:
        cost = expect_cost(checked.settings, len(checked.genes), secure)
    except ValueError as error:
        return str(error)
    minutes = (cost.sent + cost.received) / (_SPEED * _MEGABIT) / 60
    n_common, n_genes = len(checked.genes), checked.n_genes
    chosen = "" if n_genes == n_common else f"{n_genes:,} of "
    return (
        f"{chosen}{n_common:,} genes, {cost.n_parameters:,} parameters: each site sends {volume(cost.sent)} in "
        f"{cost.n_messages} messages ({volume(cost.per_round)} a round) and receives {volume(cost.received)}; "
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
    lines += ["", "what would be shared:", *tell_shared(checked), NOT_SHARED, "", f"cost: {tell_cost(checked, secure)}"]
    return "\n".join(lines)
