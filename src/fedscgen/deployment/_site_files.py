"""What a site is set up with: its file, and a unit for systemd."""

from __future__ import annotations

import sys
from pathlib import Path

from fedscgen._files import create_whole
from fedscgen._options import write_options
from fedscgen.deployment._config import SiteConfig

_HEAD = """\
# What this site decides; no coordinator can change any of it. "" is none. To be read by:
#     fedscgen site serve site.toml

"""

# PrivateNetwork is possible because a socket that is a file can be reached from other networks' names, too
_UNIT = """\
# The program that holds the cells of site {site}. Two users, so that what Flower runs can't read them:
#     useradd --system --user-group fedscgen
#     useradd --system --user-group --create-home flower
#     groupadd --system fedscgen-relay
#     usermod -aG fedscgen-relay fedscgen
#     usermod -aG fedscgen-relay flower
#     install -d -o fedscgen -g fedscgen -m 0700 /etc/fedscgen
#     install -o fedscgen -g fedscgen -m 0600 site.toml /etc/fedscgen/site.toml
#     chown fedscgen:fedscgen {data} && chmod 0600 {data}
# This file goes to /etc/systemd/system; then: systemctl enable --now fedscgen-site
[Unit]
Description=fedscgen site {site}

[Service]
User=fedscgen
SupplementaryGroups=fedscgen-relay
ExecStart={program} site serve /etc/fedscgen/site.toml
Restart=on-failure
RestartSec=10
UMask=0077
StateDirectory=fedscgen
StateDirectoryMode=0700
RuntimeDirectory=fedscgen
RuntimeDirectoryMode=0711
CacheDirectory=fedscgen
CacheDirectoryMode=0700
Environment=MPLCONFIGDIR=/var/cache/fedscgen NUMBA_CACHE_DIR=/var/cache/fedscgen
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateNetwork=true
RestrictAddressFamilies=AF_UNIX
NoNewPrivileges=true
CapabilityBoundingSet=
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictSUIDSGID=true
LockPersonality=true
# without a GPU, add:
# PrivateDevices=true

[Install]
WantedBy=multi-user.target
"""


def write_site_files(folder: Path, site: str) -> None:
    """Write ``site.toml``, with a line on each entry, and ``fedscgen-site.service``.

    Parameters
    ----------
    folder
        Folder to make.
    site
        The site's name.

    Raises
    ------
    FileExistsError
        There is such a folder.
    ValueError
        No site may have that name.
    """
    config = SiteConfig(
        site,
        data=Path("/var/lib/fedscgen/cells.h5ad"),
        output=Path("/var/lib/fedscgen/results"),
        socket=Path("/run/fedscgen/site.sock"),
        socket_group="fedscgen-relay",
    )
    program = Path(sys.executable).with_name("fedscgen")
    with create_whole(folder, overwrite=False, remedy="choose another place, or edit the site.toml in it") as target:
        target.mkdir(mode=0o700)
        target.joinpath("site.toml").write_text(_HEAD + write_options(config), encoding="utf-8")
        unit = _UNIT.format(site=site, program=program, data=config.data)
        target.joinpath("fedscgen-site.service").write_text(unit, encoding="utf-8")
