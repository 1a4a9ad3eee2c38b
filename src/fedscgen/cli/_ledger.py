"""``fedscgen ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedscgen._files import check_readable
from fedscgen.cli._errors import user_errors

_ALTERED, _UNFINISHED = 1, 3


def verify(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="The site's or coordinator's ledger.csv.")],
    head: Annotated[
        str | None, typer.Option(metavar="HASH", help="A chain that was noted before, which the ledger has to hold.")
    ] = None,
) -> None:
    """Tell whether a ledger is as it was written: no row altered, missing or out of order.

    Rows that were cut off at the end can't be seen in the file alone: note the chain that is printed, and give it as
    --head later. Ends with 1 if something was altered, and with 3 if only the last line was not written to its end.
    """
    with user_errors():
        check_readable(ledger)
        from fedscgen.federation import check_ledger

        found = check_ledger(ledger, None if head is None else head.strip().lower())
    if found.fault:
        typer.echo(f"Altered: {found.fault}. The {found.n_rows} rows before are whole; their chain is {found.head}")
        raise typer.Exit(_ALTERED)
    typer.echo(f"{found.n_rows} rows, none altered, missing or out of order. The last chain is {found.head}")
    if head is None:
        typer.echo("Whether rows were cut off at the end is seen by a chain that was noted before: --head HASH")
    if found.unfinished:
        typer.echo("A further line was not written to its end, as when a machine stops while it writes.")
        raise typer.Exit(_UNFINISHED)
