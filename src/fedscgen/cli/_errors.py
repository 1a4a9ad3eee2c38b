"""How errors are told: one line for what the user can mend, a traceback for a bug."""

from __future__ import annotations

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
        message = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        typer.secho(f"Error: {message}", err=True, fg=typer.colors.RED)
        raise typer.Exit(_BAD_INPUT) from error


def _list_mendable() -> tuple[type[Exception], ...]:
    """Errors that come of bad input. Importing the federation takes seconds, which commands that need none save."""
    from fedscgen.federation import SiteError
    from fedscgen.secure import AggregationError

    return KeyError, ValueError, OSError, ModuleNotFoundError, SiteError, AggregationError
