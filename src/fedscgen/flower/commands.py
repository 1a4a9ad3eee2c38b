"""What ``fedscgen flower`` offers. No command imports Flower, so that the command line stays fast."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fedscgen._extras import missing_extra
from fedscgen._files import check_readable
from fedscgen._options import check_settings


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    sites: Annotated[int, typer.Option(min=2, help="Sites that are waited for before a run begins.")] = 3,
    settings: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Settings to write into it: default, components, paper, or those of a file as fedscgen settings "
            "prints it.",
        ),
    ] = "default",
) -> None:
    """Write a Flower app with all settings of a federation, which flwr run accepts as it is.

    They can be edited in its pyproject.toml, or changed for a single run by flwr run --run-config. With the file of a
    simulation, what was tuned there is deployed.
    """
    _need("flwr")
    check_settings(settings)
    from fedscgen.flower._project import choose_settings, list_site_options, write_project

    chosen = choose_settings(settings)
    write_project(folder, n_sites=sites, settings=chosen.federation)
    typer.echo(f"{folder / 'pyproject.toml'} holds the settings; {folder / 'README.md'} says how to run it.")
    of_sites = list_site_options(chosen)
    if of_sites:
        typer.echo(f"Where its data are and how it corrects, each site says in its own site.toml: {of_sites}")


def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
    host: Annotated[
        list[str],
        typer.Option(metavar="NAME_OR_IP", help="By which the sites reach the coordinator. May be repeated."),
    ],
    site: Annotated[list[str], typer.Option(metavar="NAME", help="A site's name. May be repeated.")],
    days: Annotated[int, typer.Option(min=1, max=365, help="How long the certificates hold.")] = 30,
    port: Annotated[int, typer.Option(help="Where the sites reach the coordinator's proxy.")] = 8000,
    superlink_port: Annotated[int, typer.Option(help="Where the SuperLink listens, on its own computer.")] = 8001,
) -> None:
    """Make the certificates and keys of a trial and the proxy's configuration, and print the commands that use them.

    For trials only: whoever runs this holds every site's key. In production, use your institution's certificate
    authority, and have every site make its own key.
    """
    _need("flwr", "cryptography")
    from fedscgen.flower._proxy import configure_proxy
    from fedscgen.flower._trial_keys import write_trial_keys

    write_trial_keys(folder, host, site, days=days)
    proxy = folder.absolute() / "superlink" / "nginx.conf"
    proxy.write_text(configure_proxy(folder, port=port, superlink_port=superlink_port), encoding="utf-8")
    typer.echo(
        _next_steps(folder.absolute(), f"[{host[0]}]" if ":" in host[0] else host[0], port, superlink_port, site)
    )


def checklist(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="The site's ledger.csv.")],
    site: Annotated[str, typer.Option(metavar="NAME", help="The site's name.")],
) -> None:
    """Print what has left a site, as a list for its data-protection officer to tick off."""
    check_readable(ledger)
    from fedscgen import deployment

    typer.echo(deployment.checklist(ledger, site))


def _need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise missing_extra("this needs", package, "flower")


def _next_steps(folder: Path, host: str, port: int, superlink_port: int, sites: list[str]) -> str:
    authority, superlink, of_sites = folder / "ca.crt", folder / "superlink", folder / "sites"
    registered = "\n".join(f"  flwr supernode register {_quote(of_sites / site / 'auth.pub')} trial" for site in sites)
    started = "\n".join(f"  {_start_site(site, f'{host}:{port}')}" for site in sites)
    return f"""\
Made {folder}, for a trial only: whoever has made it holds every site's key. In production, use your institution's
certificate authority, and have every site make its own key.

1. Start the coordinator's SuperLink, which nobody but this computer reaches, and the proxy for the sites:
  flower-superlink --host 127.0.0.1 --port {superlink_port} --database state.db --enable-supernode-auth \\
    --ssl-ca-certfile {_quote(authority)} --ssl-certfile {_quote(superlink / "server.pem")} \\
    --ssl-keyfile {_quote(superlink / "server.key")} --disable-runtime-dependency-installation
  sudo cp {_quote(superlink / "nginx.conf")} /etc/nginx/conf.d/fedscgen.conf && sudo nginx -s reload

2. Add this to ~/.flwr/config.toml at the coordinator:
  [superlink.trial]
  address = "127.0.0.1:{superlink_port}"
  root-certificates = "{authority.as_posix()}"

3. Let the sites in:
{registered}

4. Give every site {authority} and its own folder of {of_sites}, over a channel that nobody else reads.
   There two users each run a program: one holds the cells,
  fedscgen site init site && fedscgen site serve site/site.toml
   and the other carries its messages, with these files at hand (on one computer, each with a --port of its own):
{started}

5. Begin:
  fedscgen flower init federation --sites {max(2, len(sites))}
  flwr run federation trial --stream"""


def _start_site(site: str, address: str) -> str:
    return (
        f"flower-supernode --superlink {address} --root-certificates ca.crt --auth-supernode-private-key auth.key \\\n"
        f"    --node-config 'socket=\"/run/fedscgen/{site}.sock\"'"
    )


def _quote(path: Path) -> str:
    return shlex.quote(str(path))
