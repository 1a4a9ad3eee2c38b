"""Figures: of a result, as scanpy draws them, and the blocks that reports are built of."""

from fedscgen.pl._cells import draw_cells, place_badges, scatter_png, to_picture, umap_layout
from fedscgen.pl._confidence import confidence
from fedscgen.pl._embedding import choose_cells, embedding, principal_components
from fedscgen.pl._groups import Group, group_cells, group_column
from fedscgen.pl._result import Loss, composition, ledger, moves, training
from fedscgen.pl._scores import privacy, scores
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
    "Group",
    "Loss",
    "Mark",
    "choose_cells",
    "composition",
    "confidence",
    "default_style",
    "draw_cells",
    "embedding",
    "group_cells",
    "group_column",
    "inline_svg",
    "ledger",
    "make_marks",
    "moves",
    "new_axes",
    "place_badges",
    "principal_components",
    "privacy",
    "save_figure",
    "scatter_png",
    "scores",
    "to_picture",
    "training",
    "umap_layout",
]
