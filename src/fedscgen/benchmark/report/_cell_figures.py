"""The pictures of a report: UMAP layouts, scatter plots, loss curves. No pyplot, no global setting touched."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without black and yellow, which vanish on a dark and on a white page.
SITE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
# Petroff 2021, ten colours told apart under colour-vision deficiency; here the greys come last.
LABEL_COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#832db6",
    "#92dadd",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#94a4a2",
    "#717581",
)
MARKERS = ("o", "^", "s", "D", "v")
_DASHES = ("-", "--", ":", "-.")
INK = "#010203"  # stands for the page's text colour, light or dark, until the SVG is inlined
_PANEL_INCHES = 5.0
_BADGE = 0.042  # width of a badge, as a share of the picture
_LOG_SCALE_FROM = 20.0  # ratio of largest to smallest loss


@dataclass(frozen=True)
class Mark:
    """How one site or cell type is drawn everywhere: a colour, and a shape once the colours are used up."""

    colour: str
    marker: str
    dash: str


@dataclass(frozen=True)
class Curve:
    """One line of a chart: positions and values of shape ``(n_points,)``."""

    mark: Mark
    x: np.ndarray
    y: np.ndarray


@contextmanager
def default_style(**settings: Any) -> Iterator[None]:
    """Matplotlib's own defaults for a moment: a notebook's style must not leak into the report, nor ours into it.

    ``settings`` are parameters of matplotlib's that differ from ours, with ``_`` for the dot in their names.
    """
    from matplotlib import style

    ours = {"svg.hashsalt": "fedscgen", "svg.fonttype": "path", "font.size": 11}
    with style.context(["default", ours, {name.replace("_", ".", 1): value for name, value in settings.items()}]):
        yield


def marks(n: int, colours: Sequence[str]) -> list[Mark]:
    """Return ``n`` marks, distinct as long as ``n <= 5 * len(colours)``."""
    cycles = [divmod(i, len(colours)) for i in range(n)]
    return [Mark(colours[c], MARKERS[k % len(MARKERS)], _DASHES[k % len(_DASHES)]) for k, c in cycles]


def umap_layout(embedding: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Lay cells out in the plane with UMAP (McInnes et al. 2018) on 15 nearest neighbours.

    It starts from the two directions of largest variance, which keeps far-apart groups where they belong (Kobak and
    Linderman 2021) and the picture compact.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.

    Returns
    -------
    Each coordinate scaled to 0-1, shape ``(n_cells, 2)``; the same for the same seed.
    """
    import scanpy as sc
    from anndata import AnnData

    n_cells = len(embedding)
    cells = AnnData(obsm={"X": np.asarray(embedding, dtype=np.float32)}, shape=(n_cells, 0))
    with warnings.catch_warnings():
        # A fixed seed makes UMAP run on one thread, which is what we want, and warns of it.
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        # Where cells coincide, scanpy takes a slower path; on the cells of a picture that costs nothing.
        warnings.filterwarnings("ignore", message="Changing the sparsity structure")
        # Exact search: scanpy's approximate one, its default above 8,192 cells, breaks with pynndescent 0.7.
        n_neighbors = min(15, n_cells - 1)
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep="X", transformer="sklearn", random_state=seed)
        sc.tl.umap(cells, random_state=seed, init_pos=_start(cells.obsm["X"], seed))
    layout = cells.obsm["X_umap"]
    low, high = layout.min(axis=0), layout.max(axis=0)
    return (layout - low) / np.maximum(high - low, 1e-12)


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
    pixels
        Width and height of the picture.
    """
    figure, axes = _axes(_PANEL_INCHES, _PANEL_INCHES, fill=True)
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
    """Fill ``axes``, that many inches wide, with what :func:`scatter_png` shows; an SVG gets the dots as one image."""
    axes.set(xlim=MARGIN_LIMITS, ylim=MARGIN_LIMITS)
    axes.set_axis_off()
    order = np.random.default_rng(seed).permutation(len(layout))
    colours = np.array([mark.colour for mark in palette])[codes]
    markers = np.array([mark.marker for mark in palette])[codes]
    size = float(np.clip(14_000 / len(layout), 2.0, 16.0)) * (inches / _PANEL_INCHES) ** 2
    for marker in sorted(set(markers), key=MARKERS.index):
        cells = order[markers[order] == marker]
        x, y = layout[cells].T
        axes.scatter(x, y, s=size, c=colours[cells], marker=marker, linewidths=0, alpha=0.85, rasterized=True)


MARGIN_LIMITS = (-0.04, 1.04)  # of a scatter plot's axes, which fill the picture


def to_picture(position: np.ndarray) -> tuple[float, float]:
    """Convert a position in a layout to percent of the scatter plot's width from the left and height from the top."""
    low, high = MARGIN_LIMITS
    x, y = (position - low) / (high - low)
    return 100 * float(x), 100 * (1 - float(y))


def place_badges(layout: np.ndarray, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Find for each group a spot on or beside its middlemost cell that hides few of its cells and no other badge.

    Parameters
    ----------
    layout, codes
        Positions from 0 to 1 and groups of the cells, shape ``(n_cells, 2)`` and ``(n_cells,)``; no group is empty.

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


@default_style()
def line_chart_svg(curves: Iterable[Curve], *, x_label: str, y_label: str) -> str:
    """Draw curves as an SVG element for inlining in HTML: text and axes take the colour of the text around it.

    Values that are not finite are left out; the vertical axis is logarithmic where values span a factor above 20.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(5.4, 3.4, fill=False)
    drawn = []
    for curve in curves:
        finite = np.isfinite(curve.y)
        x, y, mark = curve.x[finite], curve.y[finite], curve.mark
        drawn.append(y)
        size = 4 if len(x) <= 60 else 0
        axes.plot(x, y, color=mark.colour, linestyle=mark.dash, marker=mark.marker, markersize=size, linewidth=1.6)
    values = np.concatenate(drawn) if drawn else np.empty(0)
    if len(values) and values.min() > 0 and values.max() / values.min() > _LOG_SCALE_FROM:
        axes.set_yscale("log")
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(which="both", colors=INK)
    axes.grid(alpha=0.15, color=INK)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK)
    return inline_svg(save_figure(figure, "svg", transparent=True).decode())


def _axes(width: float, height: float, *, fill: bool) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=None if fill else "constrained")
    return figure, figure.add_axes((0, 0, 1, 1)) if fill else figure.add_subplot()


def save_figure(figure: Figure, kind: str, **options: Any) -> bytes:
    """Render as ``"svg"`` or ``"png"``, without date or version of the software."""
    buffer = io.BytesIO()
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=nothing, **options)
    return buffer.getvalue()


def inline_svg(svg: str) -> str:
    """Strip what only a file needs (prolog, document type, name spaces, fixed size), and adopt the page's colour."""
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {view_box.group()} aria-hidden="true"' if view_box else "<svg"
    return f"{head}>{body}".replace(INK, "currentColor").strip()
