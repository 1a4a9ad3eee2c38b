"""What a table of JSON values may hold: its entries by name, each of a kind and within bounds.

A check takes a value and says what was expected instead, or nothing if it is as it should be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Check = Callable[[Any], str]

LONGEST_NAME = 200
"""Characters of a site's, a cell type's or a gene's name."""


def check_length(what: str, names: Iterable[str]) -> None:
    """Refuse names that no message may hold; ``what`` they are of."""
    for name in names:
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"{what} {name[:20]!r}... has {len(name)} characters: shorten it to {LONGEST_NAME} at most"
            )


@dataclass(frozen=True)
class Table:
    """Entries by name.

    Parameters
    ----------
    needed
        Checks of entries that must be there.
    possible
        Checks of entries that may be.
    """

    needed: Mapping[str, Check] = field(default_factory=dict)
    possible: Mapping[str, Check] = field(default_factory=dict)

    def __call__(self, value: Any) -> str:
        """As a check of a table in a table."""
        return "" if isinstance(value, Mapping) and not self.find_fault(value) else f"a table: {self._names()}"

    def check(self, given: Any, where: str) -> None:
        """Refuse what isn't such a table.

        Raises
        ------
        ValueError
            An entry is missing, unknown, of another type or out of bounds; the message names ``where`` and the entry.
        """
        fault = self.find_fault(given) if isinstance(given, Mapping) else f"it is {_type(given)}, not a table"
        if fault:
            raise ValueError(f"{where}: {fault}")

    def find_fault(self, given: Mapping[str, Any]) -> str:
        """What is wrong with a table, if anything."""
        known = {**self.needed, **self.possible}
        for name in self.needed:
            if name not in given:
                return f"{name!r} is missing"
        for name, value in given.items():
            if name not in known:
                return f"unknown entry {str(name)[:40]!r}: there are {self._names()}"
            expected = known[name](value)
            if expected:
                return f"{name!r} is {_type(value)}: expected {expected}"
        return ""

    def _names(self) -> str:
        return ", ".join([*self.needed, *self.possible]) or "none"


def text(most: int = LONGEST_NAME) -> Check:
    """Text of so many characters."""
    return lambda value: "" if isinstance(value, str) and len(value) <= most else f"text of at most {most} characters"


def choice(*choices: str) -> Check:
    """One of some words."""
    return lambda value: "" if isinstance(value, str) and value in choices else f"one of {', '.join(choices)}"


def flag(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else "true or false"


def whole(least: int, most: int) -> Check:
    """A whole number from ``least`` to ``most``."""
    return lambda value: (
        "" if _is_number(value, int) and least <= value <= most else f"a whole number from {least} to {most}"
    )


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number from ``least`` to ``most``."""
    return lambda value: "" if _is_finite(value) and least <= value <= most else f"a number from {least} to {most}"


def several(check: Check, most: int) -> Check:
    """A list of at most so many values that pass a check."""

    def check_all(value: Any) -> str:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            return f"a list of at most {most}"
        return next((f"a list of {fault} (item {i} is none)" for i, v in enumerate(value) if (fault := check(v))), "")

    return check_all


def names(most: int, longest: int = LONGEST_NAME) -> Check:
    """A list of at most so many texts that all differ."""
    items = several(text(longest), most)
    return lambda value: items(value) or ("" if len(set(value)) == len(value) else "a list of texts that all differ")


def matrix(most_rows: int, most_columns: int) -> Check:
    """A list of rows of finite numbers, all of one length."""
    rows = several(several(number(), most_columns), most_rows)
    return lambda value: rows(value) or ("" if len({len(row) for row in value}) < 2 else "rows of one length")


def table_of(check: Check, most: int, longest: int = LONGEST_NAME) -> Check:
    """Entries of any names, at most so many, whose values pass a check."""

    def check_all(value: Any) -> str:
        if not isinstance(value, Mapping) or len(value) > most or any(len(name) > longest for name in value):
            return f"a table of at most {most} entries"
        return next((f"a table of {fault} ({name!r} is none)" for name, v in value.items() if (fault := check(v))), "")

    return check_all


def maybe(check: Check) -> Check:
    """Nothing, or what passes a check."""
    return lambda value: "" if value is None else check(value)


def free_value(value: Any) -> str:
    """Whatever can cross the wire; something else looks at it."""
    return ""


def table(value: Any) -> str:
    """Entries of any names."""
    return "" if isinstance(value, Mapping) else "a table"


def _type(value: Any) -> str:
    if value is None:
        return "nothing"
    size = f" of {len(value)}" if isinstance(value, (str, list, tuple, Mapping)) else ""
    return f"{type(value).__name__}{size}"


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value, int, float) and abs(value) <= sys.float_info.max
