"""Cells before and after correction, side by side."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedscgen._types import check_choice
from fedscgen.pl._axes import finish
from fedscgen.pl._cells import MARGIN_LIMITS, dot_size, draw_cells, umap_layout
from fedscgen.pl._groups import group_column
from fedscgen.pl._style import LABEL_COLOURS, SITE_COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

    from fedscgen.pl._groups import Group

LegendLocation = Literal["right margin", "none"]

_INCHES = 3.6  # of a panel
_LEGEND_INCHES = 2.4
_N_COMPONENTS = 20
_WHEN = ("before", "after")


def embedding(
    adata: AnnData,
    color: str | Sequence[str] = ("batch", "cell_type"),
    *,
    before: str | None = None,
    after: str = "X_fedscgen",
    max_cells: int = 20_000,
    legend_loc: LegendLocation = "right margin",
    seed: int = 0,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> list[Axes] | None:
    """Draw the cells before and after correction in the plane, a row of two panels for each colouring.

    What has more than two dimensions is laid out by :func:`umap_layout`. To draw the same cells several times, lay them
    out once, and name the keys of ``obsm`` with the layouts.

    Parameters
    ----------
    adata
        Corrected cells, such as ``result.corrected``. Nothing is written into it.
    color
        Columns of ``obs``, such as the sites and the cell types, or genes, whose expression before correction is
        shown. Categories have the colours of ``uns[f"{color}_colors"]`` where scanpy has put them there.
    before
        Key of ``obsm`` with the cells before correction. ``None``: 20 principal components of ``X``, which then has to
        hold the expression before correction.
    after
        Key of ``obsm`` with the corrected cells.
    max_cells
        Of more cells, so many are chosen at random, once all have got their principal components.
    legend_loc
        ``"right margin"``: categories are named beside each row. ``"none"``: nowhere.
    seed
        Seed of layouts, of the choice of cells and of the order in which they are drawn.
    ax
        Two axes for each colouring; new ones if ``None``.
    show
        Show the figure, and return nothing. ``None`` does so where neither ``ax`` nor ``save`` is given.
    save
        Path of a file to write.

    Returns
    -------
    The axes, before and after for each colouring, unless the figure is shown.

    Raises
    ------
    KeyError
        Neither a column nor a gene, or no such embedding.
    ValueError
        Fewer than three cells, no two axes for each colouring, or no place for the legend of that name.
    """
    colors = [color] if isinstance(color, str) else list(color)
    _check(adata, colors, (before, after), legend_loc)
    if ax is not None and len(ax) != 2 * len(colors):
        raise ValueError(f"{len(ax)} axes for {len(colors)} colourings: two for each are needed, before and after")
    chosen = choose_cells(adata.n_obs, max_cells, seed)
    layouts = [_lay_out(adata, key, chosen, seed) for key in (before, after)]
    axes = list(ax) if ax is not None else _make_axes(len(colors))
    for name, pair in zip(colors, zip(axes[::2], axes[1::2], strict=True), strict=True):
        categories = None if _is_numeric(adata, name) else group_column(adata, name, _palette(adata, name))
        for panel, layout, when in zip(pair, layouts, _WHEN, strict=True):
            if categories is None:
                _draw_values(panel, adata[chosen], layout, name, bar=when == "after")
            else:
                draw_cells(panel, layout, categories.codes[chosen], categories.marks, inches=_INCHES, seed=seed)
            panel.set_title(f"{name}, {when} correction", fontsize="medium")
        if categories is not None and legend_loc != "none":
            _name_groups(pair[1], categories)
    return None if finish(axes[0], ax is None, show, save) is None else axes


def choose_cells(n_cells: int, at_most: int, seed: int) -> np.ndarray:
    """Choose the cells that are shown, at random where there are too many.

    Parameters
    ----------
    n_cells
        How many there are.
    at_most
        How many may be shown.
    seed
        Seed of the choice.

    Returns
    -------
    Rising positions, shape ``(n_chosen,)``.
    """
    if n_cells <= at_most:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, at_most, replace=False))


def principal_components(adata: AnnData, *, seed: int = 0) -> np.ndarray:
    """Find up to 20 principal components of ``X``, as scanpy does.

    Parameters
    ----------
    adata
        Cells with log-normalised expression. Nothing of them is altered.
    seed
        Seed of the solver.

    Returns
    -------
    Shape ``(n_cells, n_components)``.
    """
    import scanpy as sc

    n_components = min(_N_COMPONENTS, adata.n_obs - 1, adata.n_vars - 1)
    return np.asarray(sc.pp.pca(adata.X, n_comps=n_components, random_state=seed))


def _check(adata: AnnData, colors: Sequence[str], bases: Sequence[str | None], legend_loc: str) -> None:
    check_choice(legend_loc, LegendLocation, "place for a legend")
    for name in colors:
        if name not in adata.obs and name not in adata.var_names:
            raise KeyError(f"{name!r} is no column of obs and no gene; obs has {', '.join(map(repr, adata.obs))}")
    for key in bases:
        if key is not None and key not in adata.obsm:
            raise KeyError(f"obsm[{key!r}] not found; there are {', '.join(map(repr, adata.obsm)) or 'none'}")
    if None in bases and adata.X is None:
        raise ValueError("X is empty: keep the expression before correction there, or name an embedding with before=")
    if adata.n_obs < 3:
        raise ValueError(f"{adata.n_obs} cells are too few to draw: at least 3 are needed")


def _lay_out(adata: AnnData, key: str | None, chosen: np.ndarray, seed: int) -> np.ndarray:
    """Positions from 0 to 1 of the chosen cells, shape ``(n_chosen, 2)``."""
    array = principal_components(adata, seed=seed) if key is None else np.asarray(adata.obsm[key])
    array = array[chosen]
    if key is None or array.shape[1] != 2:
        return umap_layout(array, seed=seed)
    low, high = array.min(axis=0), array.max(axis=0)
    return np.asarray((array - low) / np.maximum(high - low, 1e-12))


def _make_axes(n_rows: int) -> list[Axes]:
    """Two axes in each row, beside which legends have room."""
    from matplotlib import pyplot as plt

    width, height = 2 * _INCHES + _LEGEND_INCHES, n_rows * (_INCHES + 0.3)
    room = {"left": 0.01, "right": 2 * _INCHES / width, "bottom": 0.1 / height, "top": 1 - 0.3 / height, "wspace": 0.05}
    _, grid = plt.subplots(n_rows, 2, figsize=(width, height), squeeze=False, gridspec_kw=room)
    return list(grid.ravel())


def _is_numeric(adata: AnnData, name: str) -> bool:
    import pandas as pd

    if name not in adata.obs:
        return True
    column: pd.Series = adata.obs[name]
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _palette(adata: AnnData, name: str) -> tuple[str, ...]:
    """Sites, which the table of types names, have colours of their own."""
    from fedscgen._data import TYPES_KEY  # brings anndata, which importing this room is not to need

    types = adata.uns.get(TYPES_KEY)
    if types is None:
        return LABEL_COLOURS
    sites = set(types["site" if "site" in types else "batch"])
    return SITE_COLOURS if set(adata.obs[name].dropna().astype(str)) <= sites else LABEL_COLOURS


def _draw_values(panel: Axes, adata: AnnData, layout: np.ndarray, name: str, *, bar: bool) -> None:
    """Numbers, or a gene's expression, as scanpy draws them; ``bar``: with a colour bar."""
    import scanpy as sc
    from anndata import AnnData

    cells = AnnData(obs=sc.get.obs_df(adata, [name]), obsm={"X_layout": layout})
    size = 4 * dot_size(len(layout), _INCHES)  # scanpy's dots are half as wide
    style = {"size": size, "colorbar_loc": "right" if bar else None, "frameon": False, "linewidths": 0}
    with warnings.catch_warnings():
        # scanpy sets the colour of missing values in a way that matplotlib 3.11 announces to give up
        warnings.filterwarnings("ignore", message="The set_bad function", category=PendingDeprecationWarning)
        sc.pl.embedding(cells, "layout", color=name, ax=panel, show=False, **style)
    panel.set(xlim=MARGIN_LIMITS, ylim=MARGIN_LIMITS)


def _name_groups(panel: Axes, groups: Group) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=mark.colour, marker=mark.marker, linestyle="", markersize=5, label=name)
        for name, mark in zip(groups.names, groups.marks, strict=True)
    ]
    style: dict[str, Any] = {"frameon": False, "fontsize": "small", "handletextpad": 0.1}
    panel.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), **style)
