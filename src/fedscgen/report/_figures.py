"""Figures of a run on its page: drawn by the public plot functions, each with a file to keep."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from fedscgen.pl import INK, default_style, inline_svg, new_axes, save_figure
from fedscgen.report.page import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

_INKED = ("text_color", "axes_edgecolor", "axes_labelcolor", "xtick_color", "ytick_color")


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
        f"</figcaption><div class='plot chart' role='img' aria-label='{text(alt)}'>{inline_svg(svg)}</div></figure>"
    )


def link_file(name: str, content: bytes) -> str:
    """A link within the page that keeps a file."""
    kind = "image/svg+xml" if name.endswith(".svg") else "image/png"
    data = base64.b64encode(content).decode()
    return f"<a class='keep' download='{text(name)}' href='data:{kind};base64,{data}'>{text(name)}</a>"
