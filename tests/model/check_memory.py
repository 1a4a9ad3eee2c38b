"""Peak memory and time of a correction and of a simulation as cells grow. Some minutes and 4 GB, so run by hand:

python -m pytest -s tests/model/check_memory.py
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData, read_h5ad
from scipy import sparse

N_CELLS, N_GENES, N_EXPRESSED = (40_000, 120_000, 240_000), 2_000, 160
N_TYPES, N_BATCHES = 8, 3
SLOPE, PASSES = 0.2, 1.3


def make_cells(n_cells):
    """Cells that each express 8 % of the genes, by type and batch."""
    rng = np.random.default_rng(0)
    width = N_GENES // N_EXPRESSED
    types, batches = rng.integers(N_TYPES, size=n_cells), rng.integers(N_BATCHES, size=n_cells)
    profiles = rng.gamma(2.0, 0.5, (N_TYPES, N_GENES)).astype(np.float32)
    effects = rng.normal(0, 0.3, (N_BATCHES, N_GENES)).astype(np.float32)
    indices = np.empty((n_cells, N_EXPRESSED), dtype=np.int32)
    data = np.empty((n_cells, N_EXPRESSED), dtype=np.float32)
    for start in range(0, n_cells, 4096):
        rows = slice(start, start + 4096)
        columns = np.arange(N_EXPRESSED) * width + rng.integers(width, size=indices[rows].shape)
        own = profiles[types[rows, None], columns] + effects[batches[rows, None], columns]
        indices[rows], data[rows] = columns, np.maximum(own + rng.normal(0, 0.2, own.shape), 0.01)
    indptr = np.arange(0, indices.size + 1, N_EXPRESSED, dtype=np.int32)
    return AnnData(
        sparse.csr_matrix((data.reshape(-1), indices.reshape(-1), indptr), shape=(n_cells, N_GENES)),
        obs=pd.DataFrame(
            {"batch": pd.Categorical.from_codes(batches, [f"site{b}" for b in range(N_BATCHES)]),
             "cell_type": pd.Categorical.from_codes(types, [f"type{t}" for t in range(N_TYPES)])},
            index=[f"cell{i}" for i in range(n_cells)],
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)]),
    )  # fmt: skip


def resident():
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(kind, folder, n_cells):
    """What one kind of work takes above what was there before, in this process."""
    from fedscgen._read_cells import open_cells
    from fedscgen.federation import simulate
    from fedscgen.model import CorrectionOptions, FedSCGEN

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cells = folder / f"{n_cells}.h5ad"
    with tempfile.TemporaryDirectory(dir=folder) as place:
        if kind.startswith("out"):
            model = FedSCGEN.load(folder / "model", make_cells(1000), accelerator="cpu")
            model.correct(expression=None)  # what is loaded once
            before, began = resident(), time.monotonic()
            with open_cells(cells) as adata:
                model.correct(adata, out=Path(place) / f"out.{kind.split()[1]}")
        else:
            adata, expression = read_h5ad(cells), None if "latent" in kind else "fedscgen_corrected"
            model = FedSCGEN.load(folder / "model", make_cells(1000), accelerator="cpu")
            model.correct(expression=None)
            before, began = resident(), time.monotonic()
            if kind.startswith("simulate"):
                sites = {b: adata[adata.obs["batch"] == b].copy() for b in adata.obs["batch"].cat.categories}
                given = sites if "sites" in kind else adata
                del sites
                before = resident()
                options = CorrectionOptions(expression=expression)
                simulate(given, settings="components", correction=options, accelerator="cpu", show_progress=False)
            else:
                model.correct(adata, expression=expression)
    return {"bytes": peak() - before, "seconds": time.monotonic() - began}


@pytest.fixture(scope="module")
def folder():
    from fedscgen.model import FedSCGEN

    with tempfile.TemporaryDirectory() as place:
        sample = make_cells(3000)
        FedSCGEN.setup_anndata(sample)
        model = FedSCGEN(sample)
        model.train(1, accelerator="cpu", enable_progress_bar=False)
        model.save(Path(place) / "model")
        for n_cells in N_CELLS:
            make_cells(n_cells).write_h5ad(Path(place) / f"{n_cells}.h5ad")
        yield Path(place)


def of_process(kind, folder, n_cells):
    command = [sys.executable, __file__, kind, str(folder), str(n_cells)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def tell(capsys, text):
    with capsys.disabled():
        print(text)  # noqa: T201


def tabulate(capsys, kind, folder):
    """Multiples of the sparse input at each size, and its slope."""
    sizes = np.array(N_CELLS) * N_EXPRESSED * 8.0
    found = [of_process(kind, folder, n) for n in N_CELLS]
    taken = np.array([one["bytes"] for one in found])
    slope = (taken[-1] - taken[0]) / (sizes[-1] - sizes[0])
    multiples = ", ".join(f"{n:,} cells {b / s:.2f}" for n, b, s in zip(N_CELLS, taken, sizes, strict=True))
    tell(capsys, f"\n{kind}: {multiples}; slope {slope:.2f}; {found[-1]['seconds']:.0f} s for the most")
    return taken / sizes, slope


@pytest.mark.parametrize("kind", ["out h5ad", "out zarr"])
def test_memory_hardly_grows_with_cells_in_a_file(capsys, folder, kind):
    assert tabulate(capsys, kind, folder)[1] <= SLOPE


@pytest.mark.parametrize(("kind", "most"), [("correct", 2.6), ("correct latent", 0.5)])
def test_memory_of_a_correction(capsys, folder, kind, most):
    assert tabulate(capsys, kind, folder)[0][-1] <= most


@pytest.mark.parametrize(
    ("kind", "most"),
    [("simulate", 3.0), ("simulate latent", 1.5), ("simulate sites", 3.0), ("simulate sites latent", 1.5)],
)
def test_memory_of_a_simulation(capsys, folder, kind, most):
    assert tabulate(capsys, kind, folder)[0][-1] <= most


def test_time_of_a_correction_against_the_networks_passes(capsys, folder):
    from fedscgen.model import FedSCGEN

    adata = make_cells(20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FedSCGEN.load(folder / "model", adata, accelerator="cpu")
    ratios = []
    for _ in range(3):
        began = time.monotonic()
        for start in range(0, adata.n_obs, 1024):
            chunk = torch.from_numpy(adata.X[start : start + 1024].toarray())
            model._decode(model._encode(chunk))
        passes = time.monotonic() - began
        began = time.monotonic()
        model.correct()
        ratios.append((time.monotonic() - began) / passes)
    tell(capsys, f"\ncorrect takes {min(ratios):.2f} of the time of an encoding and a decoding; {ratios}")
    assert min(ratios) <= PASSES


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
