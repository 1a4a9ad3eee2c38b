"""Curves, such as losses over the rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.pl._style import INK, default_style, inline_svg, new_axes, save_figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedscgen.pl._style import Mark

_LOG_SCALE_FROM = 20.0  # ratio of largest to smallest loss


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Parameters
    ----------
    mark
        How it is drawn.
    x, y
        Positions and values, shape ``(n_points,)``.
    """

    mark: Mark
    x: np.ndarray
    y: np.ndarray


@default_style()
def line_chart_svg(curves: Iterable[Curve], *, x_label: str, y_label: str) -> str:
    """Draw curves as an SVG element for HTML, which takes the text colour of the page.

    Values that are not finite are left out. The vertical axis is logarithmic where values span a factor above 20.

    Parameters
    ----------
    curves
        The lines.
    x_label, y_label
        Names of the axes.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_axes(5.4, 3.4, fill=False)
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
