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
    """Fill a template of this folder and rename the page into place, so that no reader ever sees half of it.

    Parameters
    ----------
    path
        The file to write or replace.
    template
        Name of the template; it finds the style sheet, the version and the date as ``$css``, ``$version``, ``$date``.
    fields
        The rest of what it names, as HTML.
    """
    common = {
        "css": _packaged("_page.css"),
        "version": __version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    content = Template(_packaged(template)).substitute(common | dict(fields))
    write_whole(path, content.encode())


def _packaged(name: str) -> str:
    return resources.files("fedscgen.benchmark.report").joinpath(name).read_text(encoding="utf-8")
