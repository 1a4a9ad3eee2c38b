"""Figures of cells and curves. No pyplot, and nothing of matplotlib's settings is changed."""

from fedscgen.pl._cells import draw_cells, place_badges, scatter_png, to_picture, umap_layout
from fedscgen.pl._curves import Curve, line_chart_svg
from fedscgen.pl._style import (
    INK,
    LABEL_COLOURS,
    MARKERS,
    SITE_COLOURS,
    Mark,
    default_style,
    inline_svg,
    make_marks,
    new_axes,
    save_figure,
)

__all__ = [
    "INK",
    "LABEL_COLOURS",
    "MARKERS",
    "SITE_COLOURS",
    "Curve",
    "Mark",
    "default_style",
    "draw_cells",
    "inline_svg",
    "line_chart_svg",
    "make_marks",
    "new_axes",
    "place_badges",
    "save_figure",
    "scatter_png",
    "to_picture",
    "umap_layout",
]
