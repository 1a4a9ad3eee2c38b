"""Reading ``config.yml``: the section of one app in a file that the apps of a workflow share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = ("config.yml", "config.yaml")


class _Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, which YAML 1.1 takes for text, and refuses keys that are there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is there twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def find_config(folder: Path) -> Path:
    """The file in a folder.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        There are two.
    """
    found = [folder / name for name in _NAMES if (folder / name).exists()]
    if not found:
        raise FileNotFoundError(f"there is no config.yml in {folder}: add one, with a section fedscgen")
    if len(found) > 1:
        raise ValueError(f"there are config.yml and config.yaml in {folder}: keep one")
    return found[0]


def read_section(path: Path, name: str) -> dict[str, Any]:
    """An app's section, in which the text ``None`` is none.

    Parameters
    ----------
    path
        The file.
    name
        The app's key at its top.

    Raises
    ------
    ValueError
        It is no YAML, a key is there twice, or there is no such section.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a loader of plain values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise ValueError(f"{path.name} has no section {name!r} with keys: write {name}: and its keys below, indented")
    cleaned: dict[str, Any] = _without_none(section)
    return cleaned


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_none(entry) for key, entry in value.items()}
    return None if value == "None" else value
