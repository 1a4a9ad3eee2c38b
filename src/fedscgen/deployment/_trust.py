"""Whom a site knows: the fingerprints of the other sites, which their people have told its people."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING

from fedscgen._files import keep_private, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen.deployment._config import SiteConfig

_FINGERPRINT = re.compile(r"[0-9a-f]{4}(-[0-9a-f]{4}){15}")


def read_trust(path: Path) -> dict[str, str]:
    """Fingerprints of other sites by name; none if there is no such file.

    Parameters
    ----------
    path
        A TOML file with a line for each site.

    Raises
    ------
    ValueError
        The file is no TOML, or a fingerprint is none; the message names it.
    """
    if not path.exists():
        return {}
    try:
        sites = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    for site, fingerprint in sites.items():
        _check(site, fingerprint)
    return sites


def find_fingerprint(config: SiteConfig) -> str:
    """The fingerprint of a site's identity, which is made if there is none.

    Parameters
    ----------
    config
        The site's.
    """
    from fedscgen.secure import Identity  # needs the extra masked

    return Identity.at(config.output / config.identity).fingerprint


def trust_site(path: Path, site: str, fingerprint: str) -> None:
    """Add a site, or give it another fingerprint.

    Parameters
    ----------
    path
        As :func:`read_trust` takes it; it is made if there is none.
    site
        The site's name.
    fingerprint
        16 groups of four hexadecimal digits, as ``fedscgen site fingerprint`` prints it there.

    Raises
    ------
    ValueError
        It is no fingerprint.
    """
    _check(site, fingerprint)
    known = {**read_trust(path), site: fingerprint}
    with keep_private():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(f'{json.dumps(name)} = "{known[name]}"\n' for name in sorted(known)).encode())


def _check(site: str, fingerprint: object) -> None:
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(
            f"the fingerprint of site {site!r} is {fingerprint!r}: 16 groups of four hexadecimal digits, as "
            "fedscgen site fingerprint prints it at that site"
        )
