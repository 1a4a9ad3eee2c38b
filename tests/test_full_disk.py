"""Room that ends while a result is written: one line, and no crash of HDF5's when the process ends."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from anndata import read_h5ad

from cells import make_adata
from fedscgen._result_file import create_h5
from fedscgen.model import FedSCGEN

_FILL = """
import resource, sys
import fedscgen._files as files
check, calls = files.check_room, []
def fill(path, n_bytes):  # others fill the disk after there was room
    check(path, n_bytes)
    calls.append(1)
    if len(calls) == {call}:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
files.check_room = fill
{then}
"""


def run(then, size, cwd, call=1):
    code = _FILL.format(then=then, size=size, call=call)
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603


TOLD = "can't be written: File too large: make room, or choose another place"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of cells, a saved model of theirs, and the sizes of what is made of them."""
    path = tmp_path_factory.mktemp("full")
    adata = make_adata(n_cells=2000, n_genes=100)
    adata.write_h5ad(path / "cells.h5ad")
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, n_hidden=16, n_latent=4)
    model.train_local(1)
    model.references = model.get_references()
    model.save(path / "model")
    return path


@pytest.mark.parametrize("size", [1, 100, 5000, 60_000, 400_000, 1_000_000])
def test_cells_that_do_not_fit_any_more_are_one_error(folder, tmp_path, size):
    """Without a name that stays."""
    then = f"""
from pathlib import Path
from anndata import read_h5ad
from fedscgen._output import write_cells
cells = read_h5ad({str(folder / "cells.h5ad")!r})
try:
    write_cells(cells, Path("out.h5ad"))
except OSError as error:
    print(error.errno, error)
"""
    done = run(then, size, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"27 [Errno 27] out.h5ad {TOLD}\n"


@pytest.mark.parametrize(
    ("size", "what"), [(1, "the result"), (20_000, "the result"), (500_000, "out.h5ad"), (1_000_000, "out.h5ad")]
)
def test_correct_ends_with_one_line_where_room_ends(folder, tmp_path, size, what):
    """While it is tried with two cells, or later."""
    command = ["correct", str(folder / "cells.h5ad"), "-m", str(folder / "model"), "-o", "out.h5ad"]
    then = f"from fedscgen.cli import app\napp({[*command, '--batch-key', 'batch']!r})"
    done = run(then, size, tmp_path, call=2)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line != "Seed set to 0"]
    assert line == f"Error: {what} {TOLD}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["elsewhere", "beside"])
def test_simulate_keeps_what_was_trained_where_room_ends(folder, tmp_path, place):
    """Beside the result, where there is no room elsewhere."""
    (tmp_path / "settings.toml").write_text(
        "[federation]\nn-rounds = 1\nn-epochs = 1\n[federation.model]\nn_hidden = 16\n"
    )
    (tmp_path / "elsewhere").mkdir()
    command = ["simulate", str(folder / "cells.h5ad"), "-o", "out", "--settings", "settings.toml"]
    smaller = "" if place == "elsewhere" else (
        "import fedscgen.cli._kept as kept\nwrite = kept.write_training\n"
        "def write_less(folder, result):\n    if folder.name != 'out':\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n    write(folder, result)\n"
        "kept.write_training = write_less\n"
    )  # fmt: skip
    then = (
        f"import tempfile\ntempfile.tempdir = {str(tmp_path / 'elsewhere')!r}\n{smaller}"
        f"from fedscgen.cli import app\napp({command!r})"
    )
    done = run(then, 300_000, tmp_path, call=2)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    told = re.search(r"out can't be written \(.*File too large.*\): what was trained is in (\S+), with which", line)
    assert told, done.stderr
    kept = tmp_path / Path(told[1])
    assert kept.parent == (tmp_path / "elsewhere" if place == "elsewhere" else tmp_path)
    assert {path.name for path in kept.iterdir()} == {"model", "history.csv", "ledger.csv"}
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in done.stderr
    cells = read_h5ad(folder / "cells.h5ad")
    assert FedSCGEN.load(kept / "model", cells).correct().n_obs == 2000


def test_a_file_is_as_h5py_itself_writes_it(tmp_path):
    values = np.arange(100_000).reshape(1000, 100)
    with create_h5(tmp_path / "ours.h5") as (file, place):
        file.create_dataset("values", data=values, chunks=(10, 100), compression="gzip")
        file["values"].attrs["note"] = "x"
        place.check()
    with h5py.File(tmp_path / "ours.h5") as file:
        np.testing.assert_array_equal(file["values"][:], values)
        assert file["values"].attrs["note"] == "x"
