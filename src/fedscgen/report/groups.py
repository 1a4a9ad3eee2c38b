"""Sites or cell types on a page: their marks, legends and scatter plots."""

from __future__ import annotations

import base64

import numpy as np

from fedscgen.pl import Group, place_badges, scatter_png, to_picture
from fedscgen.report.page import text

SHAPES = {
    "o": '<circle cx="8" cy="8" r="7"/>',
    "^": '<path d="M8 1 15 15H1Z"/>',
    "s": '<path d="M2 2H14V14H2Z"/>',
    "D": '<path d="M8 0 16 8 8 16 0 8Z"/>',
    "v": '<path d="M8 15 15 1H1Z"/>',
}


def scatter(caption: str, alt: str, layout: np.ndarray, cells: Group, *, numbered: bool, pixels: int = 800) -> str:
    """A scatter plot under its caption; if ``numbered``, with the groups' numbers in it."""
    content = scatter_png(layout, cells.codes, cells.marks, pixels=pixels)
    return frame_scatter(caption, alt, content, layout, cells, numbered=numbered, pixels=pixels)


def frame_scatter(
    caption: str, alt: str, content: bytes, layout: np.ndarray, cells: Group, *, numbered: bool, pixels: int = 800
) -> str:
    """The picture of a scatter plot under its caption; if ``numbered``, with the groups' numbers in it."""
    png = base64.b64encode(content).decode()
    badges = _badges(layout, cells) if numbered else ""
    image = f"<img src='data:image/png;base64,{png}' alt='{text(alt)}' width='{pixels}' height='{pixels}'>"
    return f"<figure><figcaption>{text(caption)}</figcaption><div class='plot'>{image}{badges}</div></figure>"


def _badges(layout: np.ndarray, cells: Group) -> str:
    badges = []
    drawn, codes = np.unique(cells.codes, return_inverse=True)
    for code, position in zip(drawn, place_badges(layout, codes, len(drawn)), strict=True):
        left, top = to_picture(position)
        badges.append(
            f"<span class='badge' style='left:{left:.1f}%;top:{top:.1f}%' aria-hidden='true'>{code + 1}</span>"
        )
    return "".join(badges)


def legend(cells: Group, counts: np.ndarray | None = None, *, numbered: bool = False) -> str:
    """Marks and names of the groups, with numbers of cells where ``counts`` has them."""
    items = []
    for position, (name, mark) in enumerate(zip(cells.names, cells.marks, strict=True)):
        number = f"<span class='number'>{position + 1}</span>" if numbered else ""
        count = "" if counts is None else f" <span class='count'>{counts[position]:,}</span>"
        shape = f"<svg viewBox='0 0 16 16' fill='{mark.colour}' aria-hidden='true'>{SHAPES[mark.marker]}</svg>"
        items.append(f"<li>{number}{shape}<span>{text(name)}{count}</span></li>")
    return f"<ul class='legend{' numbered' if numbered else ''}'>{''.join(items)}</ul>"
