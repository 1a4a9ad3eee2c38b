"""What the command line says of bad input: one line, exit code 2, and none of the heavy libraries before it."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from cells import make_adata
from fedscgen import __version__
from fedscgen.cli import app

_SPEED = "import sys; from fedscgen.cli import app\ntry: app()\nfinally: print(*sys.modules, file=sys.stderr)"


def run(*arguments, cwd, largest_file=None):
    limit = [] if largest_file is None else ["prlimit", f"--fsize={largest_file}"]
    command = [*limit, sys.executable, "-c", _SPEED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)  # noqa: S603
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
        (
            "simulate text.h5ad -o out --settings nature",
            "Error: no settings 'nature': neither a file nor one of 'default'",
        ),
        ("demo -o out --settings nature", "Error: no settings 'nature': neither a file nor one of 'default'"),
        ("settings nature", "Error: no settings 'nature': neither a file nor one of 'default'"),
        ("check none.h5ad", "Error: none.h5ad does not exist"),
        ("check text.h5ad --settings nature", "Error: no settings 'nature'"),
        ("prepare none.h5ad -o out.h5ad", "Error: none.h5ad does not exist"),
        ("site serve none.toml", "Error: none.toml does not exist"),
        ("site trust none.toml south 0a", "Error: none.toml does not exist"),
        ("site fingerprint none.toml", "Error: none.toml does not exist"),
        ("ledger verify none.csv", "Error: none.csv does not exist"),
        ("flower checklist none.csv --site north", "Error: none.csv does not exist"),
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


def test_a_file_that_would_not_fit_is_refused_before_training_in_one_line(folder):
    """HDF5 itself ends in lines about memory, and in a crash."""
    make_adata(n_cells=2000, n_genes=300).write_h5ad(folder / "cells.h5ad")
    code, said, _ = run("simulate", "cells.h5ad", "-o", "out", "--rounds", "1", cwd=folder, largest_file=300_000)
    assert (code, "\n" in said) == (2, False), said
    assert said.startswith("Error: the result needs up to ")
    assert said.endswith("MB, for which there is no room (File too large): make room, or choose another place")
    assert {path.name for path in folder.iterdir()} == {"empty.h5ad", "text.h5ad", "model", "cells.h5ad"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_behind(tmp_path, number, code):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the tests were started so that this signal is ignored, as nohup does")
    command = [sys.executable, "-m", "fedscgen", "demo", "-o", "out"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **streams) as running:  # noqa: S603
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [path.name.startswith(".out-") for path in tmp_path.iterdir()] == [True]
        running.send_signal(number)
        said, _ = running.communicate(timeout=60)
    assert running.returncode in (code, -number)  # the latter where Python ends amid some imports
    assert "Traceback" not in said
    assert ("Interrupted: nothing unfinished is left." in said) == (number == signal.SIGINT)
    assert not list(tmp_path.iterdir())


def test_a_signal_amid_training_leaves_nothing_behind(tmp_path, monkeypatch):
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    step = "fedscgen.model._training.FedSCGENTrainingPlan.training_step"
    monkeypatch.setattr(step, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    done = CliRunner().invoke(app, ["simulate", str(tmp_path / "cells.h5ad"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 143
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="device 0 exists here")
def test_a_gpu_that_does_not_exist_is_refused(tmp_path):
    pytest.importorskip("scib_metrics")
    done = CliRunner().invoke(app, ["benchmark", "run", "smoke", "-o", str(tmp_path / "out"), "--devices", "0,7"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: device 7 does not exist: torch finds no GPU here; name 'cpu'" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:site 'alone'.* too few cells .* to tell their batch's effect:UserWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs.*:UserWarning")
@pytest.mark.filterwarnings("ignore:site 'alone' has 1 cell, and training needs 4:UserWarning")
def test_a_site_with_one_cell_does_not_end_the_run_of_others(tmp_path):
    adata = make_adata()
    adata.obs["batch"] = ["alone", *["north", "south"] * 74, "north"]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    command = ["simulate", tmp_path / "cells.h5ad", "-o", tmp_path / "out", "--settings", "components"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    (told,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["alone"]]
    assert told.split()[3:5] == ["1", "1"]
    assert "took no part in training: too few cells" in told
    assert "took no part in training" in (tmp_path / "out" / "report.html").read_text()
