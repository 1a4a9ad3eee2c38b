"""A Flower app that holds settings and nothing else: what is run is this package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fedscgen._files import create_whole
from fedscgen._options import explain, write_options
from fedscgen.deployment import CoordinatorConfig
from fedscgen.federation import find_model, read_settings
from fedscgen.flower._app_config import AppConfig

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen.federation import FederationSettings, SimulationSettings

_MIN_SITES = 2
_TABLE = "tool.flwr.app.config"

# without fab-format-version Flower takes format 0, which asks for no file with the licence
_PYPROJECT = """\
[project]
name = "fedscgen-app"
version = "1.0.0"
description = "Settings of a federation of single-cell data sets"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = []

[tool.flwr.app]
publisher = "fedscgen"

[tool.flwr.app.components]
serverapp = "fedscgen.flower.server_app:app"
clientapp = "fedscgen.flower.client_app:app"

# What the coordinator decides; "" is none. A site's own decisions are in its site.toml.
[tool.flwr.app.config]
"""

_README = """\
# A federation of single-cell data sets

`pyproject.toml` holds the settings, with a line on each. The program itself is the package `fedscgen`, of the same
version on every computer. It is installed there beforehand, with its extra "flower", from a clone of its repository:

    pip install ".[flower]"

The app lists no dependency, and so nothing is installed when a run begins. Don't install it from an index by its name:
what stands there is other people's code.

## A trial on one computer

Flower starts everything by itself, one process per site. `cells.h5ad` holds log-normalised cells with their sites in
`obs["batch"]` and their types in `obs["cell_type"]`.

    pip install "flwr[simulation]==1.41.*"
    export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
    flwr run . local --stream --federation-config "num-supernodes={n_sites}" \\
      --run-config 'simulated-data="/absolute/path/of/cells.h5ad" output="/absolute/path/of/result"'

The second line keeps Flower from installing packages when a run begins. Each site's results are in `result/sites`.
Flower's local SuperLink goes on running afterwards; `pkill -f flower-superlink` ends it.

## Across sites

1. Certificates and keys. For a trial one command makes them all, and prints the commands of steps 2 to 4 with its own
   paths:

       fedscgen flower keys keys --host coordinator.example.org --site north --site south

   In production your institution's certificate authority signs the coordinator's certificate, and every site makes its
   own key, of which only `auth.pub` leaves the site:

       ssh-keygen -t ecdsa -b 384 -N "" -f auth.key && mv auth.key.pub auth.pub

2. The coordinator starts Flower's server, which its own computer alone may reach: who reaches it can run a program at
   every site. A proxy passes what the sites need; `keys` has written its configuration.

       flower-superlink --host 127.0.0.1 --port 8001 --database state.db --enable-supernode-auth \\
         --ssl-ca-certfile keys/ca.crt --ssl-certfile keys/superlink/server.pem \\
         --ssl-keyfile keys/superlink/server.key --disable-runtime-dependency-installation
       sudo cp keys/superlink/nginx.conf /etc/nginx/conf.d/fedscgen.conf && sudo nginx -s reload

   It names the server in `~/.flwr/config.toml`, where the path of the certificate has to be absolute,

       [superlink.sites]
       address = "127.0.0.1:8001"
       root-certificates = "/absolute/path/of/keys/ca.crt"

   and lets every site in by its public key:

       flwr supernode register keys/sites/north/auth.pub sites

3. At every site two users each run a program. The first holds the cells, and alone can read them:

       fedscgen site init site
       fedscgen site serve site/site.toml

   The second carries the messages, and knows where the first one listens:

       flower-supernode --superlink coordinator.example.org:8000 --root-certificates ca.crt \\
         --auth-supernode-private-key auth.key \\
         --node-config 'socket="/run/fedscgen/site.sock"'

4. The coordinator starts the run:

       flwr run . sites --stream

Every site's corrected cells are in its own output folder, and nowhere else.
"""

_GITIGNORE = """\
# keys and cells don't belong in a repository, nor in what Flower sends to the sites
*.key
*.pem
*.h5ad
keys/
fedscgen_result/
.flwr/
.venv/
*.fab
"""


def choose_settings(source: str) -> SimulationSettings:
    """Settings by name or from a file, with a seed, and with as many sites as a deployment goes on with by default.

    Parameters
    ----------
    source
        As :func:`fedscgen.federation.read_settings` takes it.

    Raises
    ------
    FileNotFoundError
        There is neither such a name nor such a file.
    ValueError
        The file isn't TOML, or something in it is unknown or out of range; the message names it.
    """
    chosen, defaults = read_settings(source), CoordinatorConfig().settings
    seed = defaults.seed if chosen.federation.seed is None else chosen.federation.seed
    return chosen.change(seed=seed)


def list_site_options(settings: SimulationSettings) -> str:
    """What these settings ask of each site, as in its ``site.toml``; empty if that is what sites do anyway."""
    asked = [
        f"{name.replace('_', '-')}={json.dumps('' if value is None else value)}"
        for options in (settings.site, settings.correction)
        for name, value in vars(options).items()
        if value != getattr(type(options)(), name)
    ]
    return ", ".join(asked)


def write_project(folder: Path, *, n_sites: int = 3, settings: FederationSettings | None = None) -> None:
    """Write a Flower app that ``flwr run`` accepts as it is.

    Parameters
    ----------
    folder
        Folder to make. It gets ``pyproject.toml`` with all settings, ``README.md`` and ``.gitignore``.
    n_sites
        Sites that are waited for before a run begins.
    settings
        What all sites do alike; ``None`` takes the defaults of :class:`fedscgen.deployment.CoordinatorConfig`.

    Raises
    ------
    FileExistsError
        There is such a folder.
    ValueError
        Fewer than two sites, or than the settings need.
    """
    if n_sites < _MIN_SITES:
        raise ValueError(f"{n_sites} sites: a federation has at least {_MIN_SITES}")
    chosen = CoordinatorConfig().settings if settings is None else settings
    # all of the model's settings, as flwr run --run-config changes only what the file holds
    config = AppConfig(CoordinatorConfig(n_sites=n_sites, settings=chosen.spell_out()))
    _check_model_settings(config.coordinator.settings)
    of_model = explain(find_model(chosen.architecture))
    with create_whole(
        folder, overwrite=False, remedy="choose another place, or edit the pyproject.toml in it"
    ) as target:
        target.mkdir()
        for name, content in {
            "pyproject.toml": _PYPROJECT + write_options(config, table=_TABLE, entries=of_model),
            "README.md": _README.format(n_sites=n_sites),
            ".gitignore": _GITIGNORE,
        }.items():
            target.joinpath(name).write_text(content, encoding="utf-8")


def _check_model_settings(settings: FederationSettings) -> None:
    """Refuse what Flower can't carry: it takes text, numbers, true and false."""
    for name, value in settings.model.items():
        if isinstance(value, (list, tuple, dict)):
            raise ValueError(f"model: {name}={value!r} can't be set over Flower, which takes neither lists nor tables")
