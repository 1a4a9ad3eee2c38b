"""Settings check themselves, and are the same once they have been written and read."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fedscgen._options import check_fields, explain, names_of, read_options, write_options


@dataclass(frozen=True)
class Oven:
    """An oven.

    Parameters
    ----------
    heat
        In degrees; see :class:`~kitchen.Thermometer`.
    mode, timer
        What ``"fan"`` does, and when it ends. None: never.

    Raises
    ------
    ValueError
        It is too hot.
    """

    heat: float = 180.0
    mode: Literal["fan", "grill"] = "fan"
    timer: int | None = None

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Kitchen:
    """A kitchen.

    Parameters
    ----------
    name
        What it is called.
    cooks
        Who works there.
    """

    name: str
    cooks: tuple[str, ...] = ()
    open: bool = True
    recipes: Path | None = None
    oven: Oven = field(default_factory=Oven)
    shelf: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_fields(self)


FULL = Kitchen("old", ("Ann", "Bo"), False, Path("/recipes"), Oven(200, "grill", 5), {"salt_g": 3, "spice": "cumin"})


@pytest.mark.parametrize("kitchen", [FULL, Kitchen("new")])
def test_what_is_written_is_read_again(kitchen):
    assert read_options(Kitchen, tomllib.loads(write_options(kitchen)), "a file") == kitchen


def test_each_setting_is_written_below_its_explanation():
    assert write_options(Oven()) == (
        "# In degrees; see Thermometer.\nheat = 180.0\n"
        '# What "fan" does, and when it ends. "": never.\nmode = "fan"\n'
        '# What "fan" does, and when it ends. "": never.\ntimer = ""\n'
    )


def test_mappings_become_tables():
    assert '\n[run.shelf]\nsalt-g = 3\nspice = "cumin"\n' in write_options(FULL, table="run")


def test_explanations_end_with_their_section():
    assert explain(Oven) == {
        "heat": "In degrees; see Thermometer.",
        "mode": 'What "fan" does, and when it ends. None: never.',
        "timer": 'What "fan" does, and when it ends. None: never.',
    }
    assert explain(Exception) == {}


def test_settings_of_settings_stand_in_the_same_table():
    assert names_of(Kitchen) == ["name", "cooks", "open", "recipes", "heat", "mode", "timer", "shelf"]


@dataclass(frozen=True)
class HotKitchen:
    """A kitchen whose oven is hotter by default."""

    oven: Oven = field(default_factory=lambda: Oven(heat=250.0, timer=5))


def test_what_is_left_out_is_as_the_holder_has_it_by_default():
    assert read_options(HotKitchen, {"mode": "grill"}, "a file").oven == Oven(250.0, "grill", 5)
    assert read_options(HotKitchen, {"timer": ""}, "a file").oven == Oven(250.0, "fan", None)


def test_empty_text_is_none_and_not_what_must_be_given():
    assert read_options(Kitchen, {"name": "n", "recipes": "", "shelf": {"spice": ""}}, "a file") == Kitchen(
        "n", shelf={"spice": None}
    )
    with pytest.raises(ValueError, match="it lacks name"):
        read_options(Kitchen, {"name": ""}, "a file")


@pytest.mark.parametrize("given", [{"shelf": {"salt-g": 1}}, {"shelf.salt-g": 1}, {"shelf.salt_g": 1}])
def test_entries_of_a_mapping_have_its_name_or_its_table(given):
    assert read_options(Kitchen, {"name": "n", **given}, "a file").shelf == {"salt_g": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "a file: it lacks name: add name=..."),
        ({"name": "n", "haet": 3}, "unknown 'haet' in a file: there are name, cooks, open"),
        ({"name": 3}, "a file: name=3: expected text"),
        ({"name": "n", "heat": "hot"}, "heat='hot': expected a number"),
        ({"name": "n", "heat": True}, "heat=True: expected a number"),
        ({"name": "n", "timer": 1.5}, "timer=1.5: expected a whole number"),
        ({"name": "n", "open": 1}, "open=1: expected true or false"),
        ({"name": "n", "mode": "steam"}, "unknown mode 'steam': choose one of 'fan', 'grill'"),
        ({"name": "n", "mode": ["fan"]}, "unknown mode"),
        ({"name": "n", "mode": ""}, "unknown mode ''"),
        ({"name": "n", "cooks": [1]}, r"cooks=\(1,\)|cooks=\[1\]: expected a list of str"),
        ({"name": "n", "cooks": 1}, "cooks=1: expected a list of str"),
        ({"name": "n", "shelf": 1}, "shelf=1: expected a table"),
    ],
)
def test_what_does_not_fit_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        read_options(Kitchen, given, "a file")


def test_a_setting_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="a file: salt-g is there twice"):
        read_options(Kitchen, {"name": "n", "shelf": {"salt-g": 1, "salt_g": 2}}, "a file")
    with pytest.raises(ValueError, match="salt-g is there twice"):
        read_options(Kitchen, {"name": "n", "salt-g": 1, "salt_g": 2}, "a file")


def test_entries_of_mappings_are_explained_too():
    text = write_options(FULL, entries={"spice": "What makes it taste. None: nothing."})
    assert '# What makes it taste. "": nothing.\nspice = "cumin"\n' in text


def test_numbers_of_numpy_become_python_s():
    oven = Oven(np.float32(200), timer=np.int64(5))
    assert (type(oven.heat), type(oven.timer)) == (float, int)


def test_a_misspelt_setting_is_refused_by_python():
    with pytest.raises(TypeError, match="haet"):
        Oven(haet=3)
