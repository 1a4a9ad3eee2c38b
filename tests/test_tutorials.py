"""Tutorials are kept as tutorials/execute.py has executed them: whole, and without a fault."""

import ast
import json
import re
from importlib import import_module
from importlib.util import find_spec

import pytest

from pages import ROOT

FOLDER = ROOT / "tutorials"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
MOST_BYTES = 400_000
FAULTS = re.compile(r"Traceback|\w+Warning\b|/(home|tmp|usr|work|Users)/")


def read(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_of(name):
    return [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]


def texts_of(output):
    """What an output says, pictures left out."""
    content = output.get("data", {"text/plain": output.get("text", "")})
    return ["".join(text) for kind, text in content.items() if kind.startswith("text/")]


def test_there_are_eight():
    assert len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_was_executed_from_its_first_cell_to_its_last(name):
    cells = code_of(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"]) or (
        sum(bool(cell["outputs"]) for cell in cells) >= 3
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_shows_no_fault_and_no_machine(name):
    for cell in code_of(name):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            for text in texts_of(output):
                assert not FAULTS.search(text), text[:300]
    assert set(read(name)["metadata"]) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_is_small(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_calls_what_there_is(name):
    """Names that are gone would be seen only when somebody executes it again."""
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in code_of(name)))
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("fedscgen")
    ]
    assert imports
    for node in imports:
        module = import_module(node.module)
        names = [alias.name for alias in node.names]
        assert [one for one in names if not hasattr(module, one) and not find_spec(f"{node.module}.{one}")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_is_a_page_and_its_links_lead_somewhere(name):
    assert f"generated/tutorials/{name}\n" in (ROOT / "docs/index.md").read_text()
    prose = "\n".join("".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\(([^)#:]+)[)#]", prose):
        assert (FOLDER / link).exists(), link
