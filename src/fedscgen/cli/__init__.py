"""The command line: ``fedscgen demo`` and the other commands."""

from __future__ import annotations

import logging
import warnings
from typing import Annotated

import typer

from fedscgen import __version__
from fedscgen.cli import _benchmark, _check, _correct, _federation, _ledger, _prepare, _site
from fedscgen.cli._errors import user_errors
from fedscgen.featurecloud import commands as of_featurecloud
from fedscgen.flower import commands

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Integrate single-cell RNA-seq across sites that may not share their cells.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fedscgen {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False, version: Version = False
) -> None:
    """Integrate single-cell RNA-seq across sites that may not share their cells."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)  # tells of each site's seed
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"


app.command()(_federation.demo)
app.command()(_prepare.prepare)
app.command()(_check.check)
app.command()(_federation.simulate)
app.command("settings")(_federation.print_settings)
app.command()(_correct.correct)

benchmark = typer.Typer(no_args_is_help=True, help="Compare methods in experiments that resume where they stopped.")
app.add_typer(benchmark, name="benchmark")
benchmark.command()(_benchmark.run)
benchmark.command()(_benchmark.report)
benchmark.command()(_benchmark.spec)

ledger = typer.Typer(no_args_is_help=True, help="Check what a site or coordinator has recorded.")
app.add_typer(ledger, name="ledger")
ledger.command()(_ledger.verify)
site = typer.Typer(no_args_is_help=True, help="Hold a site's cells, whatever carries the messages.")
app.add_typer(site, name="site")
site.command()(user_errors()(_site.serve))
site.command()(user_errors()(_site.init))
site.command()(user_errors()(_site.fingerprint))
site.command()(user_errors()(_site.trust))

flower = typer.Typer(no_args_is_help=True, help="Prepare a federation across institutions, on Flower.")
app.add_typer(flower, name="flower")
for command in (commands.init, commands.keys, commands.checklist):
    flower.command()(user_errors()(command))

featurecloud = typer.Typer(no_args_is_help=True, help="Prepare a federation across institutions, on FeatureCloud.")
app.add_typer(featurecloud, name="featurecloud")
featurecloud.command()(user_errors()(of_featurecloud.init))
