"""How errors are told: one line for what the user can mend, a traceback for a bug."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

_BAD_INPUT = 2


@contextmanager
def user_errors() -> Iterator[None]:
    """One line and exit code 2 for what the user can mend; anything else is a bug and shows its traceback."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _list_mendable()):
            raise
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        typer.secho(f"Error: {' '.join(message.split())}", err=True, fg=typer.colors.RED)
        raise typer.Exit(_BAD_INPUT) from error


def _list_mendable() -> tuple[type[Exception], ...]:
    """Errors that come of bad input; those of the federation only if it was imported, which takes seconds."""
    from fedscgen.secure import AggregationError

    mendable = (KeyError, ValueError, OSError, ModuleNotFoundError, AggregationError)
    if "fedscgen.federation" not in sys.modules:
        return mendable
    from fedscgen.federation import SiteError

    return *mendable, SiteError
