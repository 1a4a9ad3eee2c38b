"""How figures look: palettes, marks and matplotlib's own defaults; and figures as bytes."""

from __future__ import annotations

import io
import re
from collections import Counter
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
    """How one site or cell type is drawn everywhere: by its colour, and by its shape once the colours are used up.

    Parameters
    ----------
    colour
        As HTML and matplotlib write it: ``"#0072b2"``.
    marker, dash
        Marker of a point and style of a line, as matplotlib names them.
    """

    colour: str
    marker: str
    dash: str


@contextmanager
def default_style(**settings: Any) -> Iterator[None]:
    """Draw with matplotlib's own defaults, so that a notebook's style doesn't leak into a figure, nor ours into it.

    Parameters
    ----------
    **settings
        Matplotlib's parameters that are to differ, with ``_`` for the dot in their names: ``font_size=8``.
    """
    from matplotlib import style

    ours = {"svg.hashsalt": "fedscgen", "svg.fonttype": "path", "font.size": 11}
    with style.context(["default", ours, {name.replace("_", ".", 1): value for name, value in settings.items()}]):
        yield


def make_marks(n: int, colours: Sequence[str]) -> list[Mark]:
    """Make marks for sites or cell types.

    Parameters
    ----------
    n
        How many. They are distinct up to five times the number of colours.
    colours
        The palette. A colour that it has twice is another marker the second time.
    """
    used: Counter[str] = Counter()
    marks = []
    for i in range(n):
        colour = colours[i % len(colours)]
        marks.append(Mark(colour, MARKERS[used[colour] % len(MARKERS)], _DASHES[used[colour] % len(_DASHES)]))
        used[colour] += 1
    return marks


def new_axes(width: float, height: float, *, fill: bool) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes.

    Parameters
    ----------
    width, height
        In inches.
    fill
        Whether the axes fill the figure, or leave room for labels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=None if fill else "constrained")
    return figure, figure.add_axes((0, 0, 1, 1)) if fill else figure.add_subplot()


def save_figure(figure: Figure, kind: str, **options: Any) -> bytes:
    """Render a figure without date or version of the software, so that the same figure gives the same bytes.

    Parameters
    ----------
    figure
        The figure.
    kind
        ``"svg"`` or ``"png"``.
    **options
        As matplotlib's ``savefig`` takes them.
    """
    buffer = io.BytesIO()
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=nothing, **options)
    return buffer.getvalue()


def inline_svg(svg: str) -> str:
    """Make an SVG file an element for HTML, which takes the text colour of the page.

    Parameters
    ----------
    svg
        The file's text. What only a file needs is left out: prolog, document type, name spaces and fixed size.
    """
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {view_box.group()} aria-hidden="true"' if view_box else "<svg"
    return f"{head}>{body}".replace(INK, "currentColor").strip()
