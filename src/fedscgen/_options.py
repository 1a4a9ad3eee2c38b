"""Settings as values: frozen dataclasses that check their own fields, and that files hold with an explanation of each.

None is ``None`` in Python and ``""`` in a file, whatever the setting. What a file leaves out has its default.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

Options = TypeVar("Options")

Preset = Literal["default", "components", "paper"]
"""Names of settings: the default, principal components without training, the published (Bakhtiari et al. 2025)."""

_COMMENT_WIDTH = 118
_NUMBERS: dict[type, tuple[type, ...]] = {
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
}


def check_fields(options: Any) -> None:
    """Refuse a field that is of another type than declared, or none of its choices; to be called by ``__post_init__``.

    Numbers of numpy become Python's, lists become tuples.

    Raises
    ------
    ValueError
        The message names the field and its value.
    """
    for name, hint in get_type_hints(type(options)).items():
        if name in {field.name for field in fields(options)}:
            object.__setattr__(options, name, _convert(hint, getattr(options, name), name))


def check_settings(source: str | Path) -> None:
    """Refuse what is neither a name of settings nor a file, before anything is loaded that could read it.

    Raises
    ------
    FileNotFoundError
        The message lists the names.
    """
    if source not in get_args(Preset) and not Path(source).is_file():
        names = ", ".join(map(repr, get_args(Preset)))
        raise FileNotFoundError(f"no settings {str(source)!r}: neither a file nor one of {names}")


def check_kind(value: Any, cls: type, name: str) -> None:
    """Refuse an argument that is no such options, such as a dictionary.

    Raises
    ------
    TypeError
        The message names the argument, its value and the class.
    """
    if not isinstance(value, cls):
        raise TypeError(f"{name}={value!r}: pass {cls.__name__}(...)")


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse an argument that is no whole number, or below ``least`` or above ``most``.

    Raises
    ------
    ValueError
        The message names the argument and its value.
    """
    _convert(int, value, name)
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name}={value}: " + (f"at least {least}" if most is None else f"from {least} to {most}"))


def check_share(name: str, value: Any) -> None:
    """Refuse an argument that is no number from 0 to below 1.

    Raises
    ------
    ValueError
        The message names the argument and its value.
    """
    _convert(float, value, name)
    if not 0 <= value < 1:
        raise ValueError(f"{name}={value}: a share, from 0 to below 1")


def read_options(cls: type[Options], given: Mapping[str, Any], where: str) -> Options:
    """Make options of what a file or a message holds.

    Parameters
    ----------
    cls
        A dataclass. Fields that are dataclasses themselves are read from the same table, field by field.
    given
        Values by name, with hyphens or underscores. Lists may be text with commas; ``""`` is none. Entries of a field
        that is a mapping are in a table of its name, or have names that begin with it and a dot.
    where
        What messages call the place that ``given`` comes from.

    Raises
    ------
    ValueError
        A name is unknown or missing, or a value is of the wrong type or out of range; the message names it.
    """
    try:
        left = _name_by_underscores(given)
        options = _take(cls, left)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if left:
        known = ", ".join(name.replace("_", "-") for name in names_of(cls))
        raise ValueError(f"unknown {next(iter(left)).replace('_', '-')!r} in {where}: there are {known}")
    return options


def names_of(cls: type) -> list[str]:
    """Names of all settings that :func:`read_options` knows, in their order."""
    return [name for name, _, _ in _flat_fields(cls)]


def write_options(options: Any, *, table: str = "", entries: Mapping[str, str] | None = None) -> str:
    """The options as TOML, one setting per line, below what the docstring of its class says of it.

    Parameters
    ----------
    options
        A dataclass. Fields that are dataclasses are written into the same table.
    table
        Name of the table in which the text will stand; mappings become tables below it.
    entries
        What the entries of mappings do, by name.
    """
    blocks, tables, texts = [], [], entries or {}
    for holder, field in _flat_values(options):
        value, text = getattr(holder, field.name), explain(type(holder)).get(field.name, "")
        if isinstance(value, Mapping):
            heading = f"{table}.{field.name}".lstrip(".")
            lines = [_as_line(name, entry, texts.get(name, "")) for name, entry in value.items()]
            tables.append(f"{_as_comment(text)}[{heading}]\n{''.join(lines)}")
        else:
            blocks.append(_as_line(field.name, value, text))
    return "".join(blocks) + "".join(f"\n{block}" for block in tables)


def explain(cls: type) -> dict[str, str]:
    """What the section "Parameters" of a class' docstring says of each, as plain text."""
    section = re.split(r"^Parameters\n-+\n", inspect.getdoc(cls) or "", maxsplit=1, flags=re.MULTILINE)
    if len(section) == 1:
        return {}
    body = re.split(r"^\w[\w ]*\n-{3,}$", section[1], maxsplit=1, flags=re.MULTILINE)[0]
    texts = {}
    for names, text in re.findall(r"^(\S.*)\n((?:[ ]+.*\n|\n)+)", body + "\n", flags=re.MULTILINE):
        for name in names.split(","):
            texts[name.strip()] = _as_plain(text)
    return texts


def _take(cls: type[Options], left: dict[str, Any], defaults: Options | None = None) -> Options:
    """Make options of the entries that belong to them, which are gone from ``left`` then.

    What isn't there is taken from ``defaults``, those of the class that holds these options, or from their own.
    """
    hints, missing = get_type_hints(cls), []
    chosen: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        hint, default = hints[field.name], _find_default(field, defaults)
        if is_dataclass(hint):
            chosen[field.name] = _take(hint, left, None if default is MISSING else default)  # type: ignore[arg-type]
        elif get_origin(hint) is Mapping:
            chosen[field.name] = {**({} if default is MISSING else default), **_take_mapping(field.name, left)}
        elif _is_given(left, field.name, needed=default is MISSING):
            chosen[field.name] = _read_value(hint, left.pop(field.name))
        elif default is MISSING:
            left.pop(field.name, None)
            missing.append(field.name.replace("_", "-"))
        else:
            chosen[field.name] = default
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}: add {missing[0]}=...")
    return cls(**chosen)


def _is_given(left: Mapping[str, Any], name: str, *, needed: bool) -> bool:
    """Whether there is a value; empty text is none of a setting that must be given."""
    return name in left and not (needed and left[name] == "")


def _find_default(field: Field[Any], defaults: Any) -> Any:
    """What a field has if nothing is given; ``MISSING`` if it must be given."""
    if defaults is not None:
        return getattr(defaults, field.name)
    return field.default if field.default_factory is MISSING else field.default_factory()


def _take_mapping(name: str, left: dict[str, Any]) -> dict[str, Any]:
    """The field's entries under its name."""
    entries = left.pop(name, {})
    if not isinstance(entries, Mapping):
        raise ValueError(f"{name.replace('_', '-')}={entries!r}: expected a table")
    dotted = {key: left.pop(key) for key in list(left) if key.startswith(f"{name}.")}
    entries = {**entries, **{key.removeprefix(f"{name}."): value for key, value in dotted.items()}}
    return {key: None if value == "" else value for key, value in _name_by_underscores(entries).items()}


def _name_by_underscores(given: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in given.items():
        if (key := str(name).replace("-", "_")) in named:
            raise ValueError(f"{key.replace('_', '-')} is there twice, with a hyphen and with an underscore: keep one")
        named[key] = value
    return named


def _read_value(hint: Any, value: Any) -> Any:
    """A file's value in the form that the field takes."""
    if isinstance(value, str):
        several = get_origin(hint) is tuple or any(get_origin(one) is tuple for one in get_args(hint))
        if get_origin(hint) is tuple or (several and "," in value):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if value == "" and type(None) in get_args(hint):
            return None
        if Path in (hint, *get_args(hint)):
            return Path(value)
    return value


def _convert(hint: Any, value: Any, name: str) -> Any:
    """The value as the hint has it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType or type(None) in arguments:
        hints = [argument for argument in arguments if argument is not type(None)]
        is_list = isinstance(value, (list, tuple))
        hint = next((one for one in hints if (get_origin(one) is tuple) == is_list), hints[0])
        return None if value is None else _convert(hint, value, name)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(repr, arguments))
            raise ValueError(f"unknown {name.replace('_', ' ')} {value!r}: choose one of {choices}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, arguments[0]) for item in value):
            raise ValueError(f"{name}={value!r}: expected a list of {arguments[0].__name__}")
        return tuple(value)
    kind = origin or hint
    accepted = _NUMBERS.get(kind, kind)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind in _NUMBERS):
        raise ValueError(f"{name}={value!r}: expected {_name_type(kind)}")
    if kind is Mapping:
        return _copy_mapping(value, name)
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: expected a finite number")
    return kind(value) if kind in _NUMBERS else value


def _copy_mapping(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The entries, which later changes of ``given`` don't reach; all of them can be sent and written."""
    entries = {key: value.item() if isinstance(value, np.generic) else value for key, value in given.items()}
    for key, value in entries.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {key}={value!r} can't be written into a file: {error}") from error
    return entries


def _name_type(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}.get(
        kind, kind.__name__
    )


def _flat_fields(cls: type) -> Iterator[tuple[str, type, Any]]:
    """Name, class and field of each setting, those of fields that are dataclasses among them."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        if is_dataclass(hints[field.name]):
            yield from _flat_fields(hints[field.name])
        else:
            yield field.name, cls, field


def _flat_values(options: Any) -> Iterator[tuple[Any, Any]]:
    """The object that holds each setting, and the setting's field."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from _flat_values(value)
        else:
            yield options, field


def _as_line(name: str, value: Any, text: str) -> str:
    return f"{_as_comment(text)}{name.replace('_', '-')} = {_as_toml(value)}\n"


def _as_toml(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False, allow_nan=False)


def _as_comment(text: str) -> str:
    text = re.sub(r"\bNone\b", '""', text)
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _COMMENT_WIDTH))


def _as_plain(text: str) -> str:
    """A docstring's text without its markup, in one line."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())
