"""How figures look: palettes, marks, matplotlib's own defaults, and figures as bytes."""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Mark:
    """How one site or cell type is drawn everywhere: a colour, and a shape once the colours are used up."""

    colour: str
    marker: str
    dash: str


@contextmanager
def default_style(**settings: Any) -> Iterator[None]:
    """Matplotlib's own defaults for a moment: a notebook's style must not leak into the report, nor ours into it.

    ``settings`` are parameters of matplotlib's that differ from ours, with ``_`` for the dot in their names.
    """
    from matplotlib import style

    ours = {"svg.hashsalt": "fedscgen", "svg.fonttype": "path", "font.size": 11}
    with style.context(["default", ours, {name.replace("_", ".", 1): value for name, value in settings.items()}]):
        yield


def make_marks(n: int, colours: Sequence[str]) -> list[Mark]:
    """Return ``n`` marks, distinct as long as ``n <= 5 * len(colours)``."""
    cycles = [divmod(i, len(colours)) for i in range(n)]
    return [Mark(colours[c], MARKERS[k % len(MARKERS)], _DASHES[k % len(_DASHES)]) for k, c in cycles]


def new_axes(width: float, height: float, *, fill: bool) -> tuple[Figure, Axes]:
    """A figure of that many inches with one pair of axes, which fill all of it or leave room for labels."""
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
