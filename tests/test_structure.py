"""The house is as docs/design/rooms.md says."""

import ast
import re

import pytest

from pages import ROOT
from structure import (
    files_of,
    files_with,
    parameters_of,
    private_imports,
    private_imports_of_tests,
    sizes,
)

SRC = ROOT / "src"
LARGEST_SHARE, LONGEST_FILE = 0.3, 350
# words that end like participles and are none, or describe the noun that follows
NOUNS = {"embed", "hidden", "isolated", "leading", "missing", "need", "padded", "published", "shifted", "weighted"}
NOUNS |= {"embedding", "training", "tuning", "working"}


def test_no_room_imports_another_s_private_names():
    assert private_imports(SRC) == []


def test_tests_import_private_names_of_their_own_room_only():
    assert private_imports_of_tests(ROOT / "tests") == []


def test_no_room_is_too_large():
    lines = {room: n for room, (_, n) in sizes(SRC).items()}
    assert max(lines.values()) <= LARGEST_SHARE * sum(lines.values())


def test_no_file_is_too_long():
    long = {path.name: n for path in files_of(SRC) if (n := len(path.read_text().splitlines())) > LONGEST_FILE}
    assert not long


def test_every_room_is_described():
    described = (ROOT / "docs/design/rooms.md").read_text()
    rooms = [room for room in sizes(SRC) if room not in ("__init__", "__main__")]
    assert len(rooms) > 15
    assert [room for room in rooms if f"`{room}`" not in described] == []


@pytest.mark.parametrize("setting", ["lr_decay", "server_optimizer", "restore_best_epoch"])
def test_a_setting_stands_where_it_is_declared_and_where_it_is_used(setting):
    files = [
        file for file in files_with(SRC, setting) if file.startswith(("federation/", "flower/", "deployment/", "cli"))
    ]
    assert len(files) <= 2, files


def test_simulate_has_few_parameters():
    assert len(parameters_of(SRC, "simulate")) <= 10


def test_functions_are_named_by_verbs_in_the_imperative_or_by_nouns():
    participles = []
    for path in files_of(SRC):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                word = node.name.strip("_").split("_")[0]
                if re.search(r"(ed|ing)$", word) and word not in NOUNS:
                    participles.append(f"{path.name}:{node.lineno} {node.name}")
    assert participles == []
