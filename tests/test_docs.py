"""What the documentation says holds: CI runs its commands, its code runs, every public name has its text."""

import inspect
import re
from importlib import import_module

import pytest

from cells import make_adata
from pages import ROOT, read_blocks

ROOMS = [
    "fedscgen",
    "fedscgen.aggregation",
    "fedscgen.benchmark",
    "fedscgen.benchmark.report",
    "fedscgen.check",
    "fedscgen.correction",
    "fedscgen.datasets",
    "fedscgen.deployment",
    "fedscgen.federation",
    "fedscgen.metrics",
    "fedscgen.model",
    "fedscgen.pl",
    "fedscgen.prepare",
    "fedscgen.principal_components",
    "fedscgen.report",
    "fedscgen.report.groups",
    "fedscgen.report.page",
    "fedscgen.secure",
]
TEXTS = {".py", ".md", ".toml", ".ipynb", ".yaml", ".html"}
NEED_EXTRAS = {"CryptenAggregator", "CryptenContributor", "MaskedAggregator", "MaskedContributor"}


def set_up_commands(path):
    """The two commands of a page: each a list of steps, without the environment's name."""
    chains = [block.strip().split(" &&\n") for block in read_blocks(path, "bash") if "-m venv" in block]
    return [[re.sub(r"^\.venv(-test)?/bin/", "", step.strip()) for step in steps[1:]] for steps in chains]


def ci_steps(environment):
    """What .ci/run does in one of its environments, in order."""
    steps = re.findall(rf'^"\$work/{environment}/bin/(\w+)" (.*)$', (ROOT / ".ci/run").read_text(), re.MULTILINE)
    return [" ".join(step) for step in steps]


def positions(steps, wanted):
    """Where each wanted step stands, with or without further options."""
    return [next(i for i, step in enumerate(steps) if f"{step} ".startswith(f"{want} ")) for want in wanted]


def test_ci_runs_the_commands_of_the_readme():
    demo, tests = set_up_commands("README.md")
    assert demo[1] == "pip install ."
    from_wheel = [demo[0], 'pip install "$work"/dist/*.whl', *demo[2:]]
    for wanted, environment in ((from_wheel, "demo"), (tests, "test")):
        found = positions(ci_steps(environment), wanted)
        assert len(wanted) == 3
        assert found == sorted(found)
    assert ci_steps("test")[-1].startswith(tests[-1]), "pytest's lines must come last"


@pytest.mark.parametrize("path", ["docs/installation.md"])
def test_installation_page_has_the_commands_of_the_readme(path):
    assert set_up_commands(path) == set_up_commands("README.md")


@pytest.mark.parametrize(
    "path",
    [
        ".github/workflows/test.yaml",
        ".github/workflows/build.yaml",
        ".github/workflows/tutorials.yaml",
        ".readthedocs.yaml",
    ],
)
def test_workflows_install_the_same_torch_first(path):
    torch = set_up_commands("README.md")[0][0].removeprefix("pip install ")
    for line in re.findall(r"^.*\btorch[=<>].*$", (ROOT / path).read_text(), re.MULTILINE):
        assert line.endswith(torch)


def test_workflow_installs_what_the_readme_does():
    workflow = (ROOT / ".github/workflows/test.yaml").read_text()
    _, install, run = set_up_commands("README.md")[1]
    assert f".venv-test/bin/{install}\n" in workflow
    assert f".venv-test/bin/{run}" in workflow


# scanpy, umap and pandas warn as they like; ours are tested elsewhere
@pytest.mark.filterwarnings("ignore")
def test_readme_example_runs(tmp_path, monkeypatch, quiet_figures):
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.chdir(tmp_path)
    (example,) = read_blocks("README.md", "python")
    assert len([line for line in example.splitlines() if line]) <= 10
    names = {}
    exec(example, names)  # noqa: S102  (our own page)
    assert (names["result"].corrected.obs_names == names["adata"].obs_names).all()
    assert "X_fedscgen" in names["result"].corrected.obsm
    assert (tmp_path / "model" / "weights.npz").exists()


def test_nothing_tells_anybody_to_install_the_package_by_its_name():
    """What an index holds under the name is other people's code: it is installed from a clone or a wheel."""
    folders = [ROOT / name for name in ("docs", "src", "tutorials", ".github", ".ci")]
    files = [
        ROOT / "README.md",
        ROOT / ".readthedocs.yaml",
        *(path for folder in folders for path in folder.rglob("*")),
    ]
    texts = {path: path.read_text() for path in files if path.suffix in TEXTS or path.name == "run"}
    assert len(texts) > 150
    name = r"(?<![\w./-])fedscgen(?![\w./-])"
    by_name = re.compile(rf"fedscgen\[\w|\b(pip|uv) .*install .*{name}|dependencies = .*{name}")
    found = [f"{path}: {line}" for path, text in texts.items() for line in text.splitlines() if by_name.search(line)]
    assert found == []


def public_names(room):
    """Those in ``__all__``, or else what the module defines."""
    module = import_module(room)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == room]
    return [name for name in getattr(module, "__all__", own) if not name.startswith("_")]


def takes_parameters(value):
    """Whether a function or class is called with something that needs explaining."""
    if getattr(value, "_is_protocol", False) or (inspect.isclass(value) and issubclass(value, Exception)):
        return False
    return bool(inspect.signature(value).parameters)


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in ROOMS for name in public_names(room)])
def test_public_name_is_documented(room, name):
    if name in NEED_EXTRAS:
        pytest.importorskip("cryptography", reason="needs the extra of the same name")
    value = getattr(import_module(room), name)
    assert re.search(rf"\b{name}\b", (ROOT / "docs/api.md").read_text()), f"list {room}.{name} in docs/api.md"
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return
    text = inspect.getdoc(value)
    assert text
    assert not text.startswith(f"{name}("), "a dataclass's own text, not the generated one"
    # a function of one line tells what it takes there
    if takes_parameters(value) and (inspect.isclass(value) or hasattr(import_module(room), "__all__")):
        assert "Parameters\n----------" in text
