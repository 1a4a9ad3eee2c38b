"""Batches that several columns tell apart, such as donors and lanes: joined into one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from fedscgen._data import DataKeys
from fedscgen._shared_cells import share_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

BATCH_KEY = "fedscgen_batch"
"""Column of ``obs`` with the names of several columns, joined."""

BatchKey = str | Sequence[str] | None
"""One column, several, or none: all cells are one batch."""


def name_batches(adata: AnnData, batch_key: BatchKey) -> tuple[AnnData, str | None]:
    """The cells with their batches in one column, and its name.

    Parameters
    ----------
    adata
        Not altered: another one, which shares matrices with it, gets the joined column of a list.
    batch_key
        A column of ``obs``, or a list of them.

    Raises
    ------
    KeyError
        A column is missing.
    ValueError
        A cell has no value in one, no column is named, or two batches would have one name.
    """
    if batch_key is None or isinstance(batch_key, str):
        return adata, batch_key
    shared = share_cells(adata)
    shared.obs[BATCH_KEY] = join_columns(adata, batch_key)
    return shared, BATCH_KEY


def find_held(
    sites: Mapping[str, AnnData], batch_key: str | tuple[str, ...] | None
) -> dict[str, str | tuple[str, ...] | None]:
    """Which of the columns each site has; if none has any, all of them, so that an error says what there is."""
    asked = (batch_key,) if isinstance(batch_key, str) else batch_key or ()
    held = {name: tuple(key for key in asked if key in cells.obs) for name, cells in sites.items()}
    if not any(held.values()):
        return dict.fromkeys(sites, batch_key)
    return {name: (keys[0] if isinstance(batch_key, str) else keys) if keys else None for name, keys in held.items()}


def join_columns(adata: AnnData | MuData, columns: Sequence[str], modality: str | None = None) -> pd.Categorical:
    """Each cell's batch, such as ``"donor 1, lane 2"``; see :func:`name_batches`.

    Of a MuData, whose ``obs`` or modality's ``obs`` holds each column.
    """
    if not columns:
        raise ValueError("batch_key=(): name a column or several, or None if all cells are one batch")
    parts = [DataKeys(modality=modality).categories_of(adata, column).astype(str) for column in columns]
    told_apart = list(zip(*parts, strict=True))
    joined = [", ".join(names) for names in told_apart]
    if len(set(joined)) < len(set(told_apart)):
        raise ValueError(f"batch_key={tuple(columns)}: two batches get one name: leave commas out of their names")
    return pd.Categorical(joined)
