"""Sites of a simulation that have too few cells to train: the others go on without them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from fedscgen._data import FEWEST_CELLS
from fedscgen._words import quantity
from fedscgen.federation._labels import warn
from fedscgen.federation._server import Server
from fedscgen.federation._transport import InProcessTransport, SiteError
from fedscgen.secure import PlainAggregator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

    from fedscgen.federation._client import Client

TOO_SMALL = "took no part in training: too few cells"


def find_members(sites: Mapping[str, AnnData]) -> list[str]:
    """Names of the sites that train; one without any cell is among them, and refused by its client.

    Warns
    -----
    UserWarning
        One has too few cells.
    """
    small = {name: cells.n_obs for name, cells in sites.items() if 0 < cells.n_obs < FEWEST_CELLS}
    for name, n_cells in small.items():
        warn(
            f"site {name!r} has {quantity(n_cells, 'cell')}, and training needs {FEWEST_CELLS}: the others train "
            "without it, and their model corrects its cells, as those of a site that comes later"
        )
    return [name for name in sites if name not in small]


def correct_later(server: Server, clients: Iterable[Client]) -> dict[str, str]:
    """Have each of these sites correct its cells with the result of the others; why one couldn't, by name.

    Warns
    -----
    UserWarning
        One couldn't.
    """
    settings, failed = replace(server.settings.of_correction(), min_sites=None), {}
    for client in clients:
        later = Server(InProcessTransport([client]), PlainAggregator(), settings)
        try:
            later.serve(server.genes, server.weights, server.references)
        except SiteError as error:
            failed[client.site] = f"left out: {error}"
            warn(f"the cells of site {client.site!r} are left out, of which training knows nothing: {error}")
    return failed


def note_small_sites(types: pd.DataFrame, failed: Mapping[str, str], sites: Mapping[str, AnnData]) -> pd.DataFrame:
    """The table of what moved, with what became of sites that took no part.

    Parameters
    ----------
    types
        See :class:`SimulationResult`.
    failed
        Why the cells of a site that came later are left out.
    sites
        The cells of all.
    """
    n_cells = {name: cells.n_obs for name, cells in sites.items()}
    types = types.copy()
    later = types["site"].map(n_cells) < FEWEST_CELLS
    types.loc[later, "why"] = [f"{why}; {TOO_SMALL}" if why else TOO_SMALL for why in types.loc[later, "why"]]
    rows = [
        {"site": name, "batch": "", "cell_type": "(all)", "n_cells": n_cells[name], "n_moved": 0, "why": why}
        for name, why in failed.items()
    ]
    return pd.concat([types, pd.DataFrame(rows).assign(like="")], ignore_index=True) if rows else types
