"""Figures of a run on its page: drawn by the public plot functions, each with a file to keep."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.pl import INK, default_style, inline_svg, new_axes, save_figure
from fedscgen.pl import embedding as draw_embedding
from fedscgen.report.groups import frame_scatter, legend
from fedscgen.report.page import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes

    from fedscgen.pl import Group

_INKED = ("text_color", "axes_edgecolor", "axes_labelcolor", "xtick_color", "ytick_color")
_PANEL, _PIXELS = 3.6, 800  # width of a panel with cells, in inches and on the page
_FILE_DPI = 150


def show_figure(
    name: str, caption: str, alt: str, draw: Callable[[Axes], object], size: tuple[float, float] = (5.4, 3.6)
) -> str:
    """A figure under its caption, in the page's text colour, and a link to its file, in black.

    Parameters
    ----------
    name
        Name of the file, without its suffix.
    caption, alt
        What it shows, and what it says to those who can't see it.
    draw
        Fills the axes.
    size
        Width and height in inches.
    """
    with default_style(**dict.fromkeys(_INKED, INK)):
        figure, axes = new_axes(*size, fill=False)
        draw(axes)
        svg = save_figure(figure, "svg", transparent=True).decode()
    return (
        f"<figure><figcaption>{text(caption)} {link_file(f'{name}.svg', svg.replace(INK, '#000000').encode())}"
        f"</figcaption><div class='plot chart' role='img' aria-label='{text(alt)}' style='--inches: {size[0]:.2f}'>"
        f"{inline_svg(svg)}</div></figure>"
    )


def show_embedding(title: str, what: str, layouts: Mapping[str, np.ndarray], cells: Group, *, numbered: bool) -> str:
    """Cells before and after correction side by side under one legend, and a link to both in one file.

    Parameters
    ----------
    title
        What stands above.
    what
        What the groups are, which names the file, too.
    layouts
        Positions from 0 to 1 by ``"before"`` and ``"after"``, shape ``(n_cells, 2)`` each.
    cells
        The groups, by which the cells are coloured.
    numbered
        Whether badges number the groups, where colours alone are too many.
    """
    shown = _place(layouts, cells, what)
    figures = []
    for (when, layout), content in zip(layouts.items(), _draw_panels(shown, what), strict=True):
        alt = f"UMAP of {len(layout):,} cells {when} correction, coloured by {what}: {', '.join(cells.names)}"
        figures.append(frame_scatter(f"{when.capitalize()} correction", alt, content, layout, cells, numbered=numbered))
    counts = np.bincount(cells.codes, minlength=len(cells.names))
    note = "<p class='note'>A number marks the middle of each type, or stands beside it.</p>" if numbered else ""
    name = f"cells_by_{what.replace(' ', '_')}.svg"
    return (
        f"<div class='group'><h3>{text(title)} {link_file(name, _draw_file(shown, what))}</h3>"
        f"{legend(cells, counts, numbered=numbered)}<div class='pair'>{''.join(figures)}</div>{note}</div>"
    )


def _place(layouts: Mapping[str, np.ndarray], cells: Group, what: str) -> AnnData:
    """Cells with their layouts, their group in ``obs[what]``, and its colours, where the plot looks for them."""
    import pandas as pd
    from anndata import AnnData

    index = [str(i) for i in range(len(cells.codes))]
    obs = pd.DataFrame({what: pd.Categorical.from_codes(cells.codes, list(cells.names))}, index=index)
    return AnnData(obs=obs, obsm=dict(layouts), uns={f"{what}_colors": [mark.colour for mark in cells.marks]})


@default_style()
def _draw_panels(shown: AnnData, what: str) -> list[bytes]:
    """Pictures of the cells alone, before and after."""
    panels = [new_axes(_PANEL, _PANEL, fill=True) for _ in range(2)]
    axes = [axes for _, axes in panels]
    draw_embedding(shown, what, before="before", after="after", ax=axes, legend_loc="none", show=False)
    return [save_figure(figure, "png", dpi=_PIXELS / _PANEL, transparent=True) for figure, _ in panels]


@default_style()
def _draw_file(shown: AnnData, what: str) -> bytes:
    """Both panels with titles and legend, to be kept."""
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(2 * _PANEL, _PANEL + 0.3))
    axes = list(figure.subplots(1, 2))
    draw_embedding(shown, what, before="before", after="after", ax=axes, show=False)
    return save_figure(figure, "svg", dpi=_FILE_DPI, bbox_inches="tight")


def link_file(name: str, content: bytes) -> str:
    """A link within the page that keeps a file."""
    kind = "image/svg+xml" if name.endswith(".svg") else "image/png"
    data = base64.b64encode(content).decode()
    return f"<a class='keep' download='{text(name)}' href='data:{kind};base64,{data}'>{text(name)}</a>"
