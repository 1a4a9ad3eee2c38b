"""Cells in the plane: UMAP layouts, scatter plots, and where badges may stand in them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics import neighbors_and_distances, weigh_neighbors
from fedscgen.pl._style import MARKERS, default_style, new_axes, save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from fedscgen.pl._style import Mark

_PANEL_INCHES = 5.0
_N_NEIGHBORS = 15
_BADGE = 0.042  # width of a badge, as a share of the picture
MARGIN_LIMITS = (-0.04, 1.04)  # of a scatter plot's axes, which fill the picture


def umap_layout(embedding: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Lay cells out in the plane with UMAP (McInnes et al. 2018) on 15 nearest neighbours.

    It starts from the two directions of largest variance, which keeps far-apart groups where they belong (Kobak and
    Linderman 2021) and the picture compact.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.
    seed
        Seed of UMAP. The same seed gives the same layout.

    Returns
    -------
    Each coordinate scaled to 0-1, shape ``(n_cells, 2)``.
    """
    import scanpy as sc
    from anndata import AnnData

    vectors = np.asarray(embedding, dtype=np.float32)
    graph = weigh_neighbors(*neighbors_and_distances(vectors, _N_NEIGHBORS))
    cells = AnnData(obsm={"X": vectors}, obsp={"connectivities": graph}, shape=(len(vectors), 0))
    made_of = {"method": "umap", "n_neighbors": _N_NEIGHBORS, "use_rep": "X"}
    cells.uns["neighbors"] = {"connectivities_key": "connectivities", "params": made_of}
    with warnings.catch_warnings():
        # with a fixed seed UMAP runs on one thread, as is wanted here, and warns of it
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        sc.tl.umap(cells, random_state=seed, init_pos=_start(vectors, seed))
    layout = np.asarray(cells.obsm["X_umap"])
    low, high = layout.min(axis=0), layout.max(axis=0)
    return np.asarray((layout - low) / np.maximum(high - low, 1e-12))


def _start(embedding: np.ndarray, seed: int) -> np.ndarray:
    """First two principal components, the first scaled to a standard deviation of 1; shape ``(n_cells, 2)``.

    A trace of noise keeps cells apart where the embedding has one dimension, or cells coincide.
    """
    centred = embedding - embedding.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # by rising variance
    start = np.random.default_rng(seed).normal(scale=1e-3, size=(len(embedding), 2))
    components = centred @ axes[:, ::-1][:, :2]
    start[:, : components.shape[1]] += components / max(float(components[:, 0].std()), 1e-12)
    return start.astype(np.float32)


@default_style()
def scatter_png(
    layout: np.ndarray, codes: np.ndarray, palette: Sequence[Mark], *, pixels: int = 800, seed: int = 0
) -> bytes:
    """Draw cells as dots on a transparent ground, in random order so that no group hides another.

    Parameters
    ----------
    layout
        Positions from 0 to 1, shape ``(n_cells, 2)``.
    codes
        Positions in ``palette``, shape ``(n_cells,)``.
    palette
        The marks of the groups.
    pixels
        Width and height of the picture.
    seed
        Seed of the order.
    """
    figure, axes = new_axes(_PANEL_INCHES, _PANEL_INCHES, fill=True)
    draw_cells(axes, layout, codes, palette, seed=seed)
    return save_figure(figure, "png", dpi=pixels / _PANEL_INCHES, transparent=True)


def draw_cells(
    axes: Axes,
    layout: np.ndarray,
    codes: np.ndarray,
    palette: Sequence[Mark],
    *,
    inches: float = _PANEL_INCHES,
    seed: int = 0,
) -> None:
    """Fill axes with what :func:`scatter_png` shows. In an SVG, the dots are one image.

    Parameters
    ----------
    axes
        Where to draw.
    layout, codes, palette, seed
        As for :func:`scatter_png`.
    inches
        Width of the axes, by which the dots are scaled.
    """
    axes.set(xlim=MARGIN_LIMITS, ylim=MARGIN_LIMITS)
    axes.set_axis_off()
    order = np.random.default_rng(seed).permutation(len(layout))
    colours = np.array([mark.colour for mark in palette])[codes]
    markers = np.array([mark.marker for mark in palette])[codes]
    size = dot_size(len(layout), inches)
    for marker in sorted(set(markers), key=MARKERS.index):
        cells = order[markers[order] == marker]
        x, y = layout[cells].T
        axes.scatter(x, y, s=size, c=colours[cells], marker=marker, linewidths=0, alpha=0.85, rasterized=True)


def dot_size(n_cells: int, inches: float) -> float:
    """Area of a cell's dot in axes so wide, in square points."""
    return float(np.clip(14_000 / n_cells, 2.0, 16.0)) * (inches / _PANEL_INCHES) ** 2


def to_picture(position: np.ndarray) -> tuple[float, float]:
    """Find a cell's place in the picture that :func:`scatter_png` draws.

    Parameters
    ----------
    position
        A position in the layout, shape ``(2,)``.

    Returns
    -------
    Percent of the picture's width from the left, and of its height from the top.
    """
    low, high = MARGIN_LIMITS
    x, y = (position - low) / (high - low)
    return 100 * float(x), 100 * (1 - float(y))


def place_badges(layout: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Find for each group a spot on or beside its middlemost cell that hides few of its cells and no other badge.

    Parameters
    ----------
    layout, codes
        Positions from 0 to 1 and groups of the cells, shape ``(n_cells, 2)`` and ``(n_cells,)``.
    n_groups
        How many groups there are; none is empty.

    Returns
    -------
    Positions, shape ``(n_groups, 2)``.
    """
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offsets = _BADGE * np.concatenate([0 * circle[:1], 1.1 * circle, 1.8 * circle, 2.6 * circle])  # (n_spots, 2)
    placed = np.empty((0, 2))
    for code in range(n_groups):
        own = layout[codes == code]
        middle = own[np.argmin(np.square(own - np.median(own, axis=0)).sum(axis=1))]
        spots = np.clip(middle + offsets, 0.0, 1.0)
        hidden = [np.mean(np.abs(own - spot).max(axis=1) < _BADGE / 2) for spot in spots]
        clashes = [np.sum(np.abs(placed - spot).max(axis=1) < _BADGE) for spot in spots]
        cost = 10 * np.asarray(clashes) + hidden + np.linalg.norm(offsets, axis=1)
        placed = np.concatenate([placed, spots[[np.argmin(cost)]]])
    return placed
