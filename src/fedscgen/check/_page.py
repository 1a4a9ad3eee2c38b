"""A check as a page to hand around."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen._words import quantity
from fedscgen.check._text import NOT_SHARED, tabulate_names, tell_cost, tell_names, tell_shared
from fedscgen.report.page import facts, section, text, write_page

CHECK_PAGE = "check.html"
"""File with what a check has found."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    import pandas as pd

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
        "genes": f"{checked.n_common:,}",
        "shared cell types": f"{len(checked.common_types)}",
        "obstacles": f"{checked.n_obstacles}",
    }
    found = [f"<b>{one.weight}</b> {text(one.text)}" for one in checked.findings]
    write_page(
        Path(path),
        kind="check",
        title=_find_title(checked),
        head=facts(counted),
        sections=[
            section("findings", "What stands in the way", _list(found) if found else "<p>Nothing.</p>"),
            section("fates", "How cells will be corrected", _tabulate(checked)),
            *_tell_names(checked),
            section("shared", "What would be shared", _list(map(text, tell_shared(checked))) + f"<p>{NOT_SHARED}</p>"),
            section("cost", "What it costs", f"<p>{text(tell_cost(checked, secure))}.</p>"),
        ],
    )


def _find_title(checked: Checked) -> str:
    if checked.told is not None:
        return f"Before {text(checked.sites[0].name)} trains with others"
    return f"Before {quantity(len(checked.sites), 'site')} train" + ("s" if len(checked.sites) == 1 else "")


def _tell_names(checked: Checked) -> Iterator[str]:
    """A section, if there are cells without a label."""
    told = tell_names(checked)
    if told:
        table = "" if checked.rehearsal is None else _draw_table(tabulate_names(checked.rehearsal))
        yield section("names", "How sure names will be", _list(map(text, told)) + table)


def _draw_table(table: pd.DataFrame) -> str:
    head = "".join(f"<th scope='col'>{text(name)}</th>" for name in table)
    rows = []
    for first, *values in table.itertuples(index=False):
        cells = "".join(f"<td>{text(value)}</td>" for value in values)
        rows.append(f"<tr><th scope='row'>{text(first)}</th>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


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
