"""Numbers and names as messages have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NO_LABEL = {"", "-", "?", "na", "n/a", "nan", "none", "null", "unknown", "unassigned", "unlabeled", "unlabelled"}

TURNED = "genes x cells instead of cells x genes"
TURN = "turn them with adata.T, or --transpose on the command line"
"""What is said of data that are transposed, and what to do about them."""


def means_no_label(name: object) -> bool:
    """Whether people write this for a cell type that they don't know."""
    return str(name).strip().casefold() in _NO_LABEL


def quantity(n: int, noun: str) -> str:
    """A number with its noun: ``"1 site"``, ``"2 sites"``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def join_names(names: Sequence[str]) -> str:
    """All of these names, as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def list_names(items: Iterable[object], at_most: int = 5) -> str:
    """Some of these names."""
    names = list(items)
    shown = ", ".join(repr(str(name)) for name in names[:at_most]) or "none"
    return shown + (f" and {len(names) - at_most} more" if len(names) > at_most else "")
