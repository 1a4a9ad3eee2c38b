"""What the command line says of bad input: one line, exit code 2, and none of the heavy libraries before it."""

import subprocess
import sys

import pytest

from fedscgen import __version__

_SPEED = "import sys; from fedscgen.cli import app\ntry: app()\nfinally: print(*sys.modules, file=sys.stderr)"


def run(*arguments, cwd):
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _SPEED, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )
    said, _, modules = done.stderr.rstrip().rpartition("\n")
    return done.returncode, said or done.stdout, set(modules.split())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "empty.h5ad").touch()
    (tmp_path / "text.h5ad").write_text("no cells")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("simulate none.h5ad -o out", "Error: none.h5ad does not exist"),
        ("simulate empty.h5ad -o out", "Error: empty.h5ad is empty: its download or copy may have stopped"),
        ("simulate text.h5ad -o text.h5ad/out", "Error: text.h5ad/out can't be made: {0}/text.h5ad is a file"),
        ("simulate text.h5ad -o /proc/out", "Error: /proc/out can't be made: /proc can't be written to"),
        ("simulate text.h5ad -o text.h5ad", "Error: text.h5ad exists: choose another place or add --overwrite"),
        ("correct none.h5ad -m model -o out.h5ad", "Error: none.h5ad does not exist"),
        ("correct text.h5ad -m nowhere -o out.h5ad", "Error: nowhere holds no FedSCGEN model: model.json is missing"),
    ],
)
def test_what_is_seen_at_once_is_said_at_once_in_one_line(folder, command, message):
    code, said, modules = run(*command.split(), cwd=folder)
    assert code == 2
    assert said.startswith(message.format(folder))
    assert "\n" not in said
    assert not {"scvi", "torch", "anndata", "pandas", "sklearn"} & modules


def test_the_version_is_told_and_the_package_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fedscgen", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == f"fedscgen {__version__}\n"
