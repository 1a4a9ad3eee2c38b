"""What the pages share: escaping, small building blocks, and writing a page whole or not at all."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from fedscgen import __version__
from fedscgen._files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


def text(value: object) -> str:
    """Make ``value`` harmless in HTML text and attributes."""
    return html.escape(str(value))


def counted(n: int, noun: str) -> str:
    """``"1 site"``, ``"2 sites"``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def volume(n_bytes: float) -> str:
    """Bytes for people, in powers of 1,000: ``"4.1 MB"``."""
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


def write_page(path: Path, template: str, fields: Mapping[str, str]) -> None:
    """Fill a template and rename the page into place, so that no reader ever sees half of it.

    Parameters
    ----------
    path
        The file to write or replace.
    template
        HTML; it finds the style sheet, the version and the date as ``$css``, ``$version``, ``$date``.
    fields
        The rest of what it names, as HTML.
    """
    common = {
        "css": packaged(__package__, "_page.css"),
        "version": __version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    content = Template(template).substitute(common | dict(fields))
    write_whole(path, content.encode())


def packaged(room: str, name: str) -> str:
    """A file that comes with a room of this package, such as a template."""
    return resources.files(room).joinpath(name).read_text(encoding="utf-8")
