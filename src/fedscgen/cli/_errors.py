"""How errors are told: one line for what the user can mend, a traceback for a bug."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

_BAD_INPUT, _INTERRUPTED = 2, 130
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def user_errors() -> Iterator[None]:
    """One line and exit code 2 for what the user can mend; anything else is a bug and shows its traceback."""
    try:
        with _signals_as_exits():
            yield
    except KeyboardInterrupt:
        typer.echo("Interrupted: nothing unfinished is left.", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except Exception as error:
        if not isinstance(error, _list_mendable()):
            raise
        typer.secho(f"Error: {' '.join(_tell(error).split())}", err=True, fg=typer.colors.RED)
        raise typer.Exit(_BAD_INPUT) from error


def _tell(error: Exception) -> str:
    """An error's message, without a key's quotes and a system's number."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def _signals_as_exits() -> Iterator[None]:
    """Let a signal that ends the process end it in order, so that nothing unfinished stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in ending:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _list_mendable() -> tuple[type[Exception], ...]:
    """Errors that come of bad input; those of the federation only if it was imported, which takes seconds."""
    from fedscgen.secure import AggregationError

    mendable = (KeyError, ValueError, OSError, ModuleNotFoundError, AggregationError)
    if "fedscgen.federation" not in sys.modules:
        return mendable
    from fedscgen.federation import SiteError

    return *mendable, SiteError
