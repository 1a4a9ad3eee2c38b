"""A Flower app that holds settings and nothing else: what is run is this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen._files import replacing

if TYPE_CHECKING:
    from pathlib import Path

_MIN_SITES = 2

# without fab-format-version Flower takes format 0, which asks for no file with the licence
_PYPROJECT = """\
[project]
name = "fedscgen-app"
version = "1.0.0"
description = "Settings of a federation of single-cell data sets"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["fedscgen[flower]"]

[tool.flwr.app]
publisher = "fedscgen"

[tool.flwr.app.components]
serverapp = "fedscgen.flower.server_app:app"
clientapp = "fedscgen.flower.client_app:app"

# What the coordinator decides. A site's own decisions are in its flower-supernode --node-config.
[tool.flwr.app.config]
# "training", or "correction" of sites that come later, with the trained model named below.
workflow = "training"
# Sites that are waited for before it begins.
n-sites = {n_sites}
# Names of the sites that take part, with commas between them; "": all that are connected.
sites = ""
# Fewest sites with which it goes on when others fail.
min-sites = {min_sites}
# How sums over the sites are opened. "masked": only the sum is seen; "plain": every site's part, for study only.
secure = "masked"
# Settings by name. "default": those that integrate best; "paper": the published network and schedule.
preset = "default"
# Rounds of training; 0: the preset's.
n-rounds = 0
# Epochs that every site trains in a round; 0: the preset's.
n-epochs = 0
# Which genes the model has. "intersection": those that all sites have measured.
genes = "intersection"
# Where a cell type belongs. "dominant": at the mean of the site with most of its cells, which shows the coordinator
# every site's counts; "mean": at the mean over all sites; "": what shows no counts.
reference = ""
# Where all random numbers come from.
seed = 0
# Seconds that sites are waited for before it begins.
join-timeout = 600
# Seconds that a site has for one answer; one that takes longer is left out of the round.
answer-timeout = 3600
# Folder for the coordinator's results, seen from where flower-superlink was started unless the path is absolute.
output = "fedscgen_result"
# Folder of the trained model, for workflow = "correction".
model = ""
# Run though the connection to the sites isn't encrypted by Flower: only where something else protects it.
allow-insecure-channel = false
# File (.h5ad) that a trial on one computer splits into sites by obs["batch"]. A real site ignores it.
simulated-data = ""
"""

_README = """\
# A federation of single-cell data sets

`pyproject.toml` holds the settings, with a line on each. The program itself is the package `fedscgen`, of the same
version on every computer:

    pip install "fedscgen[flower]"

## A trial on one computer

Flower starts everything by itself, one process a site. `cells.h5ad` holds log-normalised cells with their sites in
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

2. The coordinator starts Flower's server:

       flower-superlink --host 0.0.0.0 --port 8000 --database state.db --enable-supernode-auth \\
         --ssl-ca-certfile keys/ca.crt --ssl-certfile keys/superlink/server.pem \\
         --ssl-keyfile keys/superlink/server.key --disable-runtime-dependency-installation

   It names the server in `~/.flwr/config.toml`, where the path of the certificate has to be absolute,

       [superlink.sites]
       address = "coordinator.example.org:8000"
       root-certificates = "/absolute/path/of/keys/ca.crt"

   and lets every site in by its public key:

       flwr supernode register keys/sites/north/auth.pub sites

3. Every site gets `ca.crt`, and starts a program that waits for work:

       flower-supernode --superlink coordinator.example.org:8000 --root-certificates ca.crt \\
         --auth-supernode-private-key auth.key \\
         --node-config 'site="north" data="/data/north.h5ad" output="/data/fedscgen"'

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


def write_project(folder: Path, *, n_sites: int = 3) -> None:
    """Write a Flower app that ``flwr run`` accepts as it is.

    Parameters
    ----------
    folder
        Folder to make. It gets ``pyproject.toml`` with all settings, ``README.md`` and ``.gitignore``.
    n_sites
        Sites that are waited for before a run begins.

    Raises
    ------
    FileExistsError
        There is such a folder.
    ValueError
        Fewer than two sites.
    """
    if n_sites < _MIN_SITES:
        raise ValueError(f"{n_sites} sites: a federation has at least {_MIN_SITES}")
    with replacing(folder, overwrite=False, remedy="choose another place, or edit the pyproject.toml in it") as target:
        target.mkdir()
        for name, content in {
            "pyproject.toml": _PYPROJECT.format(n_sites=n_sites, min_sites=_MIN_SITES),
            "README.md": _README.format(n_sites=n_sites),
            ".gitignore": _GITIGNORE,
        }.items():
            target.joinpath(name).write_text(content, encoding="utf-8")
