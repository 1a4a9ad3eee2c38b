"""The room's face: what can be imported without the extras, and aggregators by name, to which others add theirs."""

import re
import subprocess
import sys

import pytest

import fedscgen.secure
from fedscgen.secure import (
    Aggregator,
    PlainAggregator,
    aggregator_names,
    find_aggregator,
    make_aggregator,
    register_aggregator,
)

EXTRAS = ("cryptography", "omegaconf", "platformdirs", "yaml")


def run_without(modules, script):
    """Run a script in a Python in which the modules can't be imported."""
    hide = (
        "import sys, importlib.util as util\n"
        f"hidden, find_spec = {tuple(modules)!r}, util.find_spec\n"
        "sys.modules.update(dict.fromkeys(hidden))\n"
        "util.find_spec = lambda name: None if name in hidden else find_spec(name)\n"
    )
    command = [sys.executable, "-c", hide + script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603


def test_without_extras_all_but_theirs_can_be_imported():
    ended = run_without(EXTRAS, "from fedscgen.secure import Aggregator, make_aggregator\nmake_aggregator('plain', 2)")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import MaskedAggregator", 'masked aggregation needs cryptography: add the extra "masked"'),
        ("import MaskedContributor", 'masked aggregation needs cryptography: add the extra "masked"'),
        ("import make_aggregator as m; m('masked', 2)", 'pip install ".[masked]"'),
        ("import CryptenAggregator", 'the crypten aggregator needs cryptography: add the extra "crypten"'),
        ("import CryptenContributor", 'the crypten aggregator needs cryptography: add the extra "crypten"'),
        ("import make_aggregator as m; m('crypten', 2)", 'pip install ".[crypten]"'),
    ],
)
def test_an_uninstalled_extra_is_one_sentence_with_its_command(script, sentence):
    last_line = run_without(EXTRAS, f"from fedscgen.secure {script}").stderr.strip().splitlines()[-1]
    assert last_line.startswith("ModuleNotFoundError: ")
    assert sentence in last_line
    assert re.search(r"""pip install "\.\[\w+\]"$""", last_line)


@pytest.mark.parametrize("absent", ["omegaconf", "platformdirs"])
def test_what_only_the_parties_need_is_missed_when_they_start(absent):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[crypten]")
    ended = run_without([absent], "from fedscgen.secure import CryptenAggregator\nwith CryptenAggregator(2): pass")
    assert f'the crypten aggregator needs {absent}: add the extra "crypten"' in ended.stderr


def test_aggregators_by_name():
    pytest.importorskip("cryptography", reason="needs the extras")
    made = {name: make_aggregator(name, 4) for name in ("plain", "crypten", "masked")}
    assert {name: aggregator.name for name, aggregator in made.items()} == {name: name for name in made}
    assert all(isinstance(aggregator, Aggregator) for aggregator in made.values())
    assert made["crypten"].n_parties == 3
    assert {name: aggregator.selects for name, aggregator in made.items()} == {
        "plain": True,
        "crypten": True,
        "masked": False,  # on a star it shows the keys, which needs consent
    }


def test_both_halves_of_a_kind_work_together_and_tell_what_they_protect():
    pytest.importorskip("cryptography", reason="needs the extras")
    names = ["plain", "crypten", "masked"]
    assert aggregator_names()[:3] == names, "others may have been added"
    kinds = {name: find_aggregator(name) for name in names}
    assert [name for name, kind in kinds.items() if kind.shows_terms] == ["plain"]
    assert [name for name, kind in kinds.items() if kind.star] == ["plain", "masked"]
    for name, kind in kinds.items():
        assert make_aggregator(name, 4, reveal_keys=True).selects
        contributor = kind.contributor("north", reveal_keys=True, min_sites=1)
        assert type(contributor) is type(make_aggregator(name, 4).contributor("north"))
    masked = kinds["masked"].contributor("north", reveal_keys=True, min_sites=3)
    assert (masked.site, masked.reveal_keys, masked.min_sites) == ("north", True, 3)


def test_an_aggregator_is_taken_as_it_is():
    own = PlainAggregator()
    assert make_aggregator(own, 3) is own


@pytest.mark.parametrize("unknown", ["homomorphic", None])
def test_an_unknown_name_is_refused_with_the_choices(unknown):
    choices = "choose one of 'plain', 'crypten', 'masked'"
    with pytest.raises(ValueError, match=re.escape(f"unknown aggregator {unknown!r}: {choices}")):
        make_aggregator(unknown, 3)


@pytest.mark.parametrize("kind", [PlainAggregator, PlainAggregator(), None])
def test_only_a_kind_of_aggregator_can_be_registered(kind):
    with pytest.raises(TypeError, match=r"aggregator 'own': expected an AggregatorKind, .*, not "):
        register_aggregator("own", kind)
    assert "own" not in aggregator_names()


def test_all_that_is_listed_exists_and_nothing_else():
    pytest.importorskip("cryptography", reason="needs the extras")
    assert all(getattr(fedscgen.secure, name) for name in fedscgen.secure.__all__)
    with pytest.raises(AttributeError, match="no attribute 'HomomorphicAggregator'"):
        fedscgen.secure.HomomorphicAggregator  # noqa: B018
