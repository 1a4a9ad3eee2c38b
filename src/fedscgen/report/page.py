"""What all pages share: escaping, small building blocks, and writing a page whole or not at all."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from fedscgen import __version__
from fedscgen._files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any


def text(value: object) -> str:
    """Make ``value`` harmless in HTML text and attributes."""
    return html.escape(str(value))


def volume(n_bytes: float) -> str:
    """A number of bytes in powers of 1,000: ``"4.1 MB"``."""
    size, units = float(n_bytes), ["B", "kB", "MB", "GB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}" if size < 1000 else f"{size:,.0f} {units[0]}"


def facts(items: Mapping[str, str]) -> str:
    """Large numbers with small captions."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in items.items())
    return f"<dl class='facts'>{rows}</dl>"


def pairs(title: str, values: Mapping[str, Any]) -> str:
    """A table of names and values under a title."""
    rows = "".join(
        f"<tr><th scope='row'>{text(name)}</th><td><code>{text(value)}</code></td></tr>"
        for name, value in values.items()
    )
    return f"<div><h3>{text(title)}</h3><table><tbody>{rows}</tbody></table></div>"


def section(name: str, title: str, content: str) -> str:
    """A part of a page under its heading; ``name`` is what links within the page point to."""
    return f"<section aria-labelledby='{name}'>\n<h2 id='{name}'>{title}</h2>\n{content}\n</section>"


def write_page(path: Path, *, kind: str, title: str, head: str, sections: Iterable[str], footer: str = "") -> None:
    """Write a page and rename it into place, so that no reader ever sees half of it.

    Parameters
    ----------
    path
        The file to write or replace.
    kind
        What sort of page it is, in a word.
    title
        Its heading, as HTML.
    head
        What follows the heading, as HTML.
    sections
        See :func:`section`.
    footer
        What is said below the sections, besides when and with which version they were written.
    """
    content = Template(_read_resource("_page.html")).substitute(
        css=_read_resource("_page.css"),
        kind=kind,
        title=title,
        head=head,
        sections="\n".join(sections),
        footer=footer,
        version=__version__,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_whole(path, content.encode())


def _read_resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
