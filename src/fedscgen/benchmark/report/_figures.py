"""The charts of a benchmark: small panels, one by one in the page and together in a file. No pyplot."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.pl import INK, default_style, inline_svg, save_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from fedscgen.pl import Mark

PANEL_WIDTH = 2.5  # inches
_FONT, _FONT_SIZE = "DejaVu Sans", 8  # matplotlib brings it along
_FILE_DPI = 160
_SIDE = 0.1  # inches beside a panel, into which a number at the end of its axis may reach
_LINE_CHARACTERS, _LINES = 19, 2  # of a row's name
_NARROWEST_AXIS = 0.05  # so that differences of no importance don't look large


@dataclass(frozen=True)
class Panel:
    """One chart.

    Parameters
    ----------
    title
        What it shows.
    alt
        What it shows, with its values, for those who can't see it.
    draw
        Fills the axes.
    height
        Height in inches.
    """

    title: str
    alt: str
    draw: Callable[[Axes], None]
    height: float


@dataclass(frozen=True)
class Figure:
    """Panels that belong together.

    Parameters
    ----------
    name
        Name of its files, without a suffix.
    panels
        The panels in reading order.
    columns
        Panels side by side in the files.
    legend
        Marks to be explained, by what they stand for.
    """

    name: str
    panels: Sequence[Panel]
    columns: int
    legend: Mapping[str, Mark]


@dataclass(frozen=True)
class Dot:
    """Mean and standard deviation (or NaN) in a row; ``lane`` of ``lanes`` keeps the dots of a row apart."""

    row: int
    mark: Mark
    mean: float
    sd: float
    lane: int = 0
    lanes: int = 1

    @property
    def height(self) -> float:
        """Its vertical position; a row has the height 1."""
        return self.row + (self.lane - (self.lanes - 1) / 2) * 0.7 / self.lanes


def panel_height(rows: Sequence[str], lanes: int = 1) -> float:
    """Height in inches of named rows, each with so many dots one below the other."""
    lines = max((wrap(row).count("\n") for row in rows), default=0) + 1
    return 0.45 + len(rows) * max(0.07 + 0.12 * lanes, 0.07 + 0.12 * lines)


def draw_dots(axes: Axes, rows: Sequence[str], dots: Sequence[Dot], *, zero: bool = False) -> None:
    """Draw dots with their standard deviations as whiskers, in named rows from top to bottom; ``zero``: with a line."""
    for dot in dots:
        style: dict[str, Any] = {
            "color": dot.mark.colour,
            "marker": dot.mark.marker,
            "markersize": 4.5,
            "linewidth": 1.1,
        }
        whisker = None if np.isnan(dot.sd) else dot.sd
        axes.errorbar(dot.mean, dot.height, xerr=whisker, **style)
    if zero:
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5, zorder=0)
    _name_rows(axes, rows)
    _widen(axes)


def draw_boxes(axes: Axes, rows: Sequence[str], boxes: Sequence[tuple[int, Mark, np.ndarray]], largest: float) -> None:
    """Draw boxes of the quantiles 5, 25, 50, 75 and 95 percent in named rows, on an axis from 1 to ``largest``."""
    for row, mark, (low, q1, median, q3, high) in boxes:
        line = {"color": mark.colour, "linewidth": 1.1}
        axes.bxp(
            [{"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []}],
            positions=[row], widths=0.55, orientation="horizontal", manage_ticks=False, patch_artist=True,
            showfliers=False, whiskerprops=line, capprops=line, medianprops={**line, "linewidth": 2.2},
            boxprops={"edgecolor": mark.colour, "facecolor": f"{mark.colour}40", "linewidth": 1.1},
        )  # fmt: skip
        axes.plot(median, row, color=mark.colour, marker=mark.marker, markersize=4.5)
    _name_rows(axes, rows)
    margin = 0.03 * max(largest - 1, 1)  # a single batch leaves no room between 1 and the largest
    axes.set_xlim(1 - margin, largest + margin)
    axes.set_xticks(np.unique(np.linspace(1, largest, 4).round()))


def draw_heat_map(axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw ``values`` of shape ``(n_rows, n_columns)`` as shades with numbers; the highest is framed."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    shades = colormaps["viridis"](Normalize(np.nanmin(values), np.nanmax(values))(values))
    n_rows, n_columns = values.shape
    best = np.unravel_index(np.nanargmax(values), values.shape)
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            axes.text(column, row, "–", ha="center", va="center", color=INK)
            continue
        shade = shades[row, column]
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=shade, linewidth=0))
        colour, weight = _contrast_colour(shade), "bold" if (row, column) == best else "normal"
        shown = f"{value:.2f}".replace("0.", ".", 1) if n_columns > 6 else f"{value:.3f}"
        axes.text(column, row, shown, ha="center", va="center", color=colour, weight=weight, size=_FONT_SIZE - 1)
    axes.add_patch(Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=2.2))
    axes.set(xlim=(-0.55, n_columns - 0.45), ylim=(n_rows - 0.45, -0.55))
    axes.set_xticks(range(n_columns), columns)
    axes.set_yticks(range(n_rows), rows)
    axes.set_xlabel("Epochs per round")
    axes.set_ylabel("Rounds")
    axes.tick_params(length=0)


def _contrast_colour(shade: np.ndarray) -> str:
    """White or near-black, whichever contrasts more with an RGBA colour (relative luminance as in WCAG 2)."""
    linear = np.where(shade[:3] <= 0.04045, shade[:3] / 12.92, ((shade[:3] + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def wrap(name: str) -> str:
    """Break a long name where words or capitals begin, and cut off what doesn't fit."""
    lines = [""]
    for word in re.findall(r"[A-Z]?[^A-Z\s_-]+[\s_-]*|.", " ".join(name.split())):
        if lines[-1] and len(lines[-1] + word.rstrip()) > _LINE_CHARACTERS:
            lines.append("")
        lines[-1] += word
    shown = [_shorten(line.strip()) for line in lines[:_LINES]]
    if len(lines) > _LINES:
        shown[-1] = _shorten(f"{shown[-1]}…")
    return "\n".join(shown)


def _shorten(line: str) -> str:
    return line if len(line) <= _LINE_CHARACTERS else f"{line[: _LINE_CHARACTERS - 1]}…"


def _name_rows(axes: Axes, rows: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_yticks(range(len(rows)), [wrap(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", length=0)
    axes.grid(alpha=0.15, color=INK, linewidth=0.6)
    axes.spines["bottom"].set_visible(True)


def _widen(axes: Axes) -> None:
    low, high = axes.get_xlim()
    if high - low < _NARROWEST_AXIS:
        middle = (low + high) / 2
        axes.set_xlim(middle - _NARROWEST_AXIS / 2, middle + _NARROWEST_AXIS / 2)


def inline_panels(figure: Figure) -> list[str]:
    """Render every panel as an SVG element for the page, with text in the page's own font."""
    return [_inline_panel(panel, f"{figure.name}-{i}") for i, panel in enumerate(figure.panels)]


def _inline_panel(panel: Panel, salt: str) -> str:
    from matplotlib.figure import Figure as Canvas

    with _small_style(svg_fonttype="none", svg_hashsalt=salt):  # salted: ids stay unique within the page
        canvas = Canvas(figsize=(PANEL_WIDTH, panel.height), layout="constrained")
        _fill(canvas.add_subplot(), panel)
        svg = inline_svg(save_figure(canvas, "svg", transparent=True).decode())
    return _slim_down(svg)


def _slim_down(svg: str) -> str:
    """Drop what hundreds of panels in a page needn't carry: comments, styles, blanks, ids, turns by 0, decimals."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("<g/>", "").replace(f"'{_FONT}'", "system-ui")
    return re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", " ".join(tag.group().split())), svg)


def save_panels(figure: Figure, folder: Path) -> None:
    """Write all panels together as ``NAME.svg`` and ``NAME.png``, on white."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(figure.columns, len(figure.panels))
    n_rows = -(-len(figure.panels) // columns)
    height = 0.25 + max(panel.height for panel in figure.panels)
    with _small_style():
        layout = ConstrainedLayoutEngine(w_pad=_SIDE)
        canvas = Canvas(figsize=(columns * PANEL_WIDTH, n_rows * height + 0.3), layout=layout, facecolor="white")
        places = canvas.subplots(n_rows, columns, squeeze=False).ravel()
        for axes, panel in zip(places, figure.panels, strict=False):
            _fill(axes, panel)
            axes.set_title(panel.title, fontsize=_FONT_SIZE + 1)
        for axes in places[len(figure.panels) :]:
            axes.set_axis_off()
        _add_legend(canvas, figure.legend)
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")  # it stays as it is now, and isn't found again for each kind
        for kind in ("svg", "png"):
            (folder / f"{figure.name}.{kind}").write_bytes(save_figure(canvas, kind, dpi=_FILE_DPI))


@contextmanager
def _small_style(**settings: Any) -> Iterator[None]:
    plain = {"text_parse_math": False}  # a name may hold dollar signs
    with default_style(font_family=_FONT, font_size=_FONT_SIZE, **plain, **settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the page's own font has it
        yield


def _fill(axes: Axes, panel: Panel) -> None:
    for spine in axes.spines.values():
        spine.set(visible=False, color=INK, alpha=0.5)
    panel.draw(axes)
    axes.tick_params(which="both", colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _add_legend(canvas: Canvas, legend: Mapping[str, Mark]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=mark.marker, color=mark.colour, label=" ".join(name.split()))
        for name, mark in legend.items()
    ]
    if handles:
        canvas.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
