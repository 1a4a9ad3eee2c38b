"""How sure the classifier is of the cells' types, and of whose labels it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.pl._axes import finish, take_axes
from fedscgen.pl._groups import MISSING, group_column
from fedscgen.pl._style import LABEL_COLOURS

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes


def confidence(
    adata: AnnData,
    groupby: str = "fedscgen_cell_type",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw how probable the classifier finds the cells' types, and count the labels that are contradicted.

    A box holds the middle half of a group's cells, its line is their median, and the whiskers reach from 5 to 95
    percent of them. Beside each group stands how many of its cells have a label that classifier and neighbours
    contradict.

    Parameters
    ----------
    adata
        Corrected cells, with ``obs["fedscgen_confidence"]`` and ``obs["fedscgen_label_conflict"]``.
    groupby
        Column of ``obs``: the types that the cells were given, or their sites. Groups have the colours of
        ``uns[f"{groupby}_colors"]`` where scanpy has put them there.
    ax, show, save
        As in :func:`training`.

    Returns
    -------
    As in :func:`training`.

    Raises
    ------
    KeyError
        A column is missing: the correction had no classifier, or these are no corrected cells.
    ValueError
        No cell has a confidence.
    """
    from fedscgen._data import CONFIDENCE_KEY, CONFLICT_KEY  # brings anndata, which importing this room is not to need

    for key in (CONFIDENCE_KEY, CONFLICT_KEY):
        if key not in adata.obs:
            raise KeyError(f"obs[{key!r}] not found: pass corrected cells; without labels there is no classifier")
    values = adata.obs[CONFIDENCE_KEY].to_numpy(dtype=float)
    if not np.isfinite(values).any():
        raise ValueError(f"obs[{CONFIDENCE_KEY!r}] has no value: the classifier knew none of the cells' types")
    groups = group_column(adata, groupby, LABEL_COLOURS)
    conflicts = adata.obs[CONFLICT_KEY].to_numpy(dtype=bool)
    boxes: list[dict[str, Any]] = []
    notes = []
    for code in range(len(groups.names)):
        own = groups.codes == code
        known = values[own & np.isfinite(values)]
        low, q1, median, q3, high = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95]) if len(known) else [np.nan] * 5
        boxes.append({"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []})
        notes.append(f"{conflicts[own].sum():,} of {own.sum():,}")
    ax, own_axes = take_axes(ax, (7, 1.4 + 0.35 * len(boxes)))
    drawn = ax.bxp(boxes, positions=range(len(boxes)), orientation="horizontal", showfliers=False, patch_artist=True)
    for box, median_line, mark in zip(drawn["boxes"], drawn["medians"], groups.marks, strict=True):
        box.set(facecolor=mark.colour, linewidth=0.6)
        median_line.set(color="black")
    ax.set_yticks(range(len(boxes)), ["no type" if name == MISSING else name for name in groups.names])
    ax.set(xlim=(0, 1.02), xlabel="probability of the cell's type")
    ax.invert_yaxis()
    beside = ax.secondary_yaxis("right")
    beside.set_yticks(range(len(notes)), notes)
    beside.set_ylabel("labels contradicted")
    beside.tick_params(length=0)
    return finish(ax, own_axes, show, save)
