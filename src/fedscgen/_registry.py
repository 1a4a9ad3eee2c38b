"""Things known by name, to which other packages add their own without an edit here."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import entry_points
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

PLUGINS = "fedscgen.plugins"
"""Entry points by which an installed package names the modules that register what it brings."""

_Value = TypeVar("_Value")


class Registry(Generic[_Value]):
    """Values by name. A name that isn't known yet is looked for in the installed plug-ins, too.

    Parameters
    ----------
    what
        What the values are, for messages: ``"aggregator"``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._values: dict[str, _Value] = {}

    def register(self, name: str, value: _Value, *, overwrite: bool = False) -> None:
        """Add a value.

        Raises
        ------
        ValueError
            The name is empty, or is taken and ``overwrite`` isn't set.
        """
        if not name:
            raise ValueError(f"name={name!r}: give the {self._what} a name")
        if name in self._values and not overwrite:
            raise ValueError(f"there is {self._what} {name!r} already: choose another name, or set overwrite=True")
        self._values[name] = value

    def find(self, name: str) -> _Value:
        """The value of that name.

        Raises
        ------
        ValueError
            There is none; the message lists those there are.
        """
        if name not in self._values:
            load_plugins()
        if name not in self._values:
            choices = ", ".join(map(repr, self._values))
            raise ValueError(f"unknown {self._what} {name!r}: choose one of {choices}")
        return self._values[name]

    def names(self) -> list[str]:
        """All names, the package's own first."""
        load_plugins()
        return list(self._values)


@cache
def load_plugins() -> None:
    """Import the modules that installed packages declare under :data:`PLUGINS`, once in a process.

    One that fails doesn't keep the others from their work: the log names it and says why.
    """
    for plugin in entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:  # noqa: BLE001  (other people's code)
            logger.warning("the plug-in %r (%s) can't be loaded: %s", plugin.name, plugin.value, error)
