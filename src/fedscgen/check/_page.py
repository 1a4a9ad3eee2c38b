"""A check as a page to hand around."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen._words import quantity
from fedscgen.check._text import NOT_SHARED, tell_cost, tell_shared
from fedscgen.report.page import facts, section, text, write_page

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from fedscgen.check._check import Checked


def write_check_page(path: str | PathLike[str], checked: Checked, *, secure: str = "masked") -> None:
    """Write what a check has found as one HTML file.

    Parameters
    ----------
    path
        The file to write or replace.
    checked
        What :func:`check_sites` returned.
    secure
        How sums would be opened.
    """
    counted = {
        "sites": f"{len(checked.sites)}",
        "cells": f"{sum(site.n_cells for site in checked.sites):,}",
        "genes": f"{len(checked.genes):,}",
        "shared cell types": f"{len(checked.common_types)}",
        "obstacles": f"{checked.n_obstacles}",
    }
    found = [f"<b>{one.weight}</b> {text(one.text)}" for one in checked.findings]
    write_page(
        Path(path),
        kind="check",
        title=f"Before {quantity(len(checked.sites), 'site')} train" + ("s" if len(checked.sites) == 1 else ""),
        head=facts(counted),
        sections=[
            section("findings", "What stands in the way", _list(found) if found else "<p>Nothing.</p>"),
            section("fates", "How cells will be corrected", _tabulate(checked)),
            section("shared", "What would be shared", _list(map(text, tell_shared(checked))) + f"<p>{NOT_SHARED}</p>"),
            section("cost", "What it costs", f"<p>{text(tell_cost(checked, secure))}.</p>"),
        ],
    )


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _tabulate(checked: Checked) -> str:
    """One row per cell type, one column per site."""
    names = [site.name for site in checked.sites]
    head = "".join(f"<th scope='col'>{text(name)}</th>" for name in names)
    rows = []
    for label, group in checked.tell_fates().groupby("cell_type", sort=True):
        of_site = {row.site: f"{row.cells} {text(row.corrected)}" for row in group.itertuples()}
        cells = "".join(f"<td>{of_site.get(name, '')}</td>" for name in names)
        rows.append(f"<tr><th scope='row'>{text(label)}</th>{cells}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
