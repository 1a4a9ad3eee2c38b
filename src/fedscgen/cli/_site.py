"""``fedscgen site``: the program that holds a site's cells."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fedscgen._files import check_readable


def serve(
    file: Annotated[Path, typer.Argument(metavar="SITE.toml", help="What the site decides, as site init writes it.")],
) -> None:
    """Hold a site's cells, and answer what reaches its socket, until it is stopped.

    Run it as a user of its own, who alone can read the cells; what carries the messages runs as another.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    check_readable(file)
    from fedscgen import deployment  # takes seconds

    with suppress(SystemExit):  # as it ends by a signal
        deployment.serve(deployment.SiteConfig.read(file))
    logging.shutdown()
    os._exit(0)  # the libraries' own exit takes seconds, and their threads can hold it up


def fingerprint(
    file: Annotated[Path, typer.Argument(metavar="SITE.toml", help="What the site decides.")],
) -> None:
    """Print the fingerprint that the other sites' people need, to be told them by telephone or on paper.

    The site's key is made if there is none.
    """
    check_readable(file)
    from fedscgen import deployment

    typer.echo(deployment.find_fingerprint(deployment.SiteConfig.read(file)))


def trust(
    file: Annotated[Path, typer.Argument(metavar="SITE.toml", help="What this site decides.")],
    site: Annotated[str, typer.Argument(metavar="NAME", help="The other site's name.")],
    of_site: Annotated[str, typer.Argument(metavar="FINGERPRINT", help="As its people have told it.")],
) -> None:
    """Let another site take part in this site's runs, and nobody else in its name."""
    check_readable(file)
    from fedscgen import deployment

    config = deployment.SiteConfig.read(file)
    deployment.trust_site(config.output / config.trusted_sites, site, of_site)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    site: Annotated[str, typer.Option(metavar="NAME", help="The site's name.")] = "north",
) -> None:
    """Write site.toml with all that a site decides, and a unit by which systemd runs its service."""
    from fedscgen import deployment

    deployment.write_site_files(folder, site)
    typer.echo(f"{folder / 'site.toml'} holds what the site decides: say in it where the cells and the results are.")
    typer.echo(f"{folder / 'fedscgen-site.service'} is for systemd; its comments say what has to be there.")
