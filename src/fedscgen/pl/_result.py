"""Figures of a federation's result, with scanpy's habits: axes, ``show`` and ``save``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from fedscgen._types import check_choice
from fedscgen.pl._axes import finish, name_above, take_axes
from fedscgen.pl._groups import MISSING, group_column
from fedscgen.pl._style import INK, LABEL_COLOURS, SITE_COLOURS, make_marks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

Loss = Literal["validation_loss", "train_loss"]

_BYTES_PER_MEGABYTE = 1e6
_LOG_SCALE_FROM = 20.0  # ratio of largest to smallest loss
_LOSSES = {"validation_loss": "validation loss", "train_loss": "training loss"}


def training(
    history: pd.DataFrame,
    *,
    loss: Loss = "validation_loss",
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw each site's loss over the rounds, or over the epochs of a single round, and the federation's.

    The axis of losses is logarithmic where they span a factor above 20.

    Parameters
    ----------
    history
        ``result.history`` of a simulation: columns ``"site"``, ``"round"``, ``"epoch"`` and the loss, and
        ``"federation_loss"``, the validation loss over all sites, where it is known.
    loss
        ``"validation_loss"``, beside which the federation's is drawn, or ``"train_loss"``.
    palette
        Colours of the sites, by name. ``None``: the package's.
    ax
        Axes to draw on; new ones if ``None``.
    show
        Show the figure, and return nothing. ``None`` does so where neither ``ax`` nor ``save`` is given.
    save
        Path of a file to write.

    Returns
    -------
    The axes, unless the figure is shown.

    Raises
    ------
    ValueError
        There was no training, or no loss of that name.
    """
    check_choice(loss, Loss, "loss")
    if history.empty:
        raise ValueError("the history is empty: nothing was trained (n_rounds=0)")
    ax, own = take_axes(ax, (6, 4))
    at, unit = _find_progress(history)
    sites = list(dict.fromkeys(history["site"].astype(str)))
    colours = SITE_COLOURS if palette is None else [palette[site] for site in sites]
    for site, mark in zip(sites, make_marks(len(sites), colours), strict=True):
        rows = np.flatnonzero(history["site"].astype(str) == site)
        rows = rows[np.argsort(at[rows], kind="stable")]
        style: dict[str, Any] = {"color": mark.colour, "ls": mark.dash, "marker": mark.marker, "ms": 3}
        ax.plot(at[rows], history[loss].to_numpy(dtype=float)[rows], label=site, **style)
    if loss == "validation_loss" and "federation_loss" in history:
        rounds = history.groupby("round")["federation_loss"].first()
        ax.plot(rounds.index, rounds, color=INK, lw=2, label="federation")
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > _LOG_SCALE_FROM:
        ax.set_yscale("log")
    ax.set(xlabel=unit, ylabel=_LOSSES[loss], xlim=(0, at.max() * 1.02))
    name_above(ax)
    return finish(ax, own, show, save)


def _find_progress(history: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Position of each row, and its unit: rounds, each ending at its number, or epochs where there is one round."""
    rounds = np.unique(history["round"].to_numpy(), return_inverse=True)[1]
    epochs = history["epoch"].groupby([history["site"].astype(str), rounds]).rank(method="dense").to_numpy()
    return (epochs, "epoch") if rounds.max() == 0 else (rounds + epochs / epochs.max(), "round")


def moves(
    types: pd.DataFrame, *, ax: Axes | None = None, show: bool | None = None, save: str | Path | None = None
) -> Axes | None:
    """Draw which share of each site's cells of each type has moved, with numbers of cells; blank where a site has none.

    Parameters
    ----------
    types
        ``result.types`` of a simulation, or ``corrected.uns["fedscgen_types"]`` of a correction: columns
        ``"cell_type"``, ``"n_cells"``, ``"n_moved"``, and ``"site"`` or ``"batch"``.
    ax, show, save
        As in :func:`training`.

    Returns
    -------
    As in :func:`training`.

    Raises
    ------
    ValueError
        The table has no row.
    """
    if types.empty:
        raise ValueError("the table of types is empty: the model doesn't tell which cells it moves")
    place = "site" if "site" in types else "batch"
    sums = types.groupby([place, "cell_type"], observed=True, sort=False)[["n_cells", "n_moved"]].sum()
    cells, n_moved = (sums[name].unstack(place) for name in ("n_cells", "n_moved"))
    ax, own = take_axes(ax, (2.5 + 0.9 * cells.shape[1], 1.5 + 0.35 * cells.shape[0]))
    image = ax.imshow(n_moved / cells, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for (row, column), n in np.ndenumerate(cells.to_numpy(dtype=float)):
        if np.isfinite(n):
            share = n_moved.iat[row, column] / n
            ax.text(column, row, f"{n:.0f}", ha="center", va="center", color="black" if share > 0.5 else "white")
    ax.set_xticks(range(cells.shape[1]), cells.columns, rotation=30, ha="right")
    ax.set_yticks(range(cells.shape[0]), cells.index)
    ax.figure.colorbar(image, ax=ax, label="share of the cells that moved")
    return finish(ax, own, show, save)


def composition(
    adata: AnnData,
    site_key: str,
    labels_key: str = "cell_type",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw each site's shares of cell types.

    Parameters
    ----------
    adata
        Cells of several sites.
    site_key, labels_key
        Columns of ``obs`` with the sites and the cell types. Types have the colours of
        ``uns[f"{labels_key}_colors"]`` where scanpy has put them there. Cells without a label are grey.
    ax, show, save
        As in :func:`training`.

    Returns
    -------
    As in :func:`training`.

    Raises
    ------
    KeyError
        A column is missing.
    """
    sites, types = group_column(adata, site_key, SITE_COLOURS), group_column(adata, labels_key, LABEL_COLOURS)
    shares = pd.crosstab(sites.of_cells(), types.of_cells(), normalize="index").loc[list(sites.names)]
    ax, own = take_axes(ax, (7, 1.2 + 0.45 * len(shares)))
    left = np.zeros(len(shares))
    for name, mark in zip(types.names, types.marks, strict=True):
        label = "no label" if name == MISSING else name
        ax.barh(shares.index, shares[name], left=left, color=mark.colour, label=label)
        left = left + shares[name].to_numpy()
    ax.set(xlim=(0, 1), xlabel="share of the site's cells")
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(ax, own, show, save)


def ledger(
    rows: pd.DataFrame, *, ax: Axes | None = None, show: bool | None = None, save: str | Path | None = None
) -> Axes | None:
    """Draw how many bytes left the sites, by kind of message and by how they were protected.

    Parameters
    ----------
    rows
        ``result.ledger`` of a simulation, or a site's ``ledger.csv``: columns ``"kind"``, ``"receiver"``,
        ``"protection"`` and ``"bytes"``.
    ax, show, save
        As in :func:`training`.

    Returns
    -------
    As in :func:`training`.

    Raises
    ------
    ValueError
        Nothing was sent to the coordinator.
    """
    sent = rows[rows["receiver"] == "server"]
    if sent.empty:
        raise ValueError("the ledger has no message to the coordinator")
    table = sent.groupby(["kind", "protection"], sort=False)["bytes"].sum().unstack("protection").fillna(0)
    table = table.loc[table.sum(axis=1).sort_values().index] / _BYTES_PER_MEGABYTE
    ax, own = take_axes(ax, (7, 1.2 + 0.35 * len(table)))
    left = np.zeros(len(table))
    for name, mark in zip(table, make_marks(table.shape[1], SITE_COLOURS), strict=True):
        ax.barh(table.index, table[name], left=left, color=mark.colour, label=str(name))
        left = left + table[name].to_numpy()
    ax.set(xlabel="megabytes that left the sites")
    ax.legend(frameon=False, fontsize="small", title="protection")
    return finish(ax, own, show, save)
