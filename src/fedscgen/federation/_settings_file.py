"""All settings of a simulation by one name, or in one file that says of each what it does."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fedscgen._options import Preset, check_settings, explain, names_of, read_options, write_options
from fedscgen.federation._models import find_model
from fedscgen.federation._settings import FederationSettings, SiteOptions
from fedscgen.model import CorrectionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


@dataclass(frozen=True)
class SimulationSettings:
    """What :func:`simulate` takes as ``settings``, ``site`` and ``correction``.

    Parameters
    ----------
    federation
        What all sites do alike.
    site
        What is where in the data.
    correction
        How cells are corrected.
    """

    federation: FederationSettings = field(default_factory=FederationSettings)
    site: SiteOptions = field(default_factory=SiteOptions)
    correction: CorrectionOptions = field(default_factory=CorrectionOptions)

    def change(self, **changes: Any) -> Self:
        """The same with the named settings changed, unless they are ``None``; each goes to the part that has it.

        Of ``model``, entries that aren't named stay.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if "model" in given:
            given["model"] = {**self.federation.model, **given["model"]}
        parts = {}
        for part in fields(self):
            options = getattr(self, part.name)
            own = {name: given.pop(name) for name in names_of(type(options)) if name in given}
            parts[part.name] = replace(options, **own)
        if given:
            raise ValueError(f"unknown setting {next(iter(given))!r}")
        return replace(self, **parts)


def read_settings(source: str | Path) -> SimulationSettings:
    """Settings by name or from a file.

    Parameters
    ----------
    source
        ``"default"``, ``"components"``, ``"paper"``, or the path of a TOML file with the tables ``[federation]``,
        ``[site]`` and ``[correction]``, as :func:`write_settings` makes them. What it leaves out has its default.

    Raises
    ------
    FileNotFoundError
        There is neither such a name nor such a file.
    ValueError
        The file isn't TOML, or something in it is unknown or out of range; the message names it.
    """
    presets: tuple[Preset, ...] = get_args(Preset)
    for preset in presets:
        if source == preset:
            correction = CorrectionOptions.from_preset(preset)
            return SimulationSettings(FederationSettings.from_preset(preset), correction=correction)
    check_settings(source)
    try:
        content = tomllib.loads(Path(source).read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is not TOML: {error}") from error
    return _read_tables(content, source)


def write_settings(settings: SimulationSettings) -> str:
    """The settings as the text of a TOML file, each below what it does; those of the model as far as they are set.

    Parameters
    ----------
    settings
        What :func:`read_settings` will give again.
    """
    of_model = explain(find_model(settings.federation.architecture))
    parts = {part.name: getattr(settings, part.name) for part in fields(settings)}
    return "\n".join(
        f"[{name}]\n{write_options(options, table=name, entries=of_model)}" for name, options in parts.items()
    )


def _read_tables(content: Mapping[str, Any], source: str | Path) -> SimulationSettings:
    kinds: dict[str, type] = {"federation": FederationSettings, "site": SiteOptions, "correction": CorrectionOptions}
    for name, table in content.items():
        if name not in kinds or not isinstance(table, dict):
            tables = ", ".join(f"[{kind}]" for kind in kinds)
            raise ValueError(f"unknown {name!r} in {source}: settings stand in the tables {tables}")
    read: dict[str, Any] = {
        name: read_options(kinds[name], table, f"[{name}] of {source}") for name, table in content.items()
    }
    return SimulationSettings(**read)
