"""Files as people really have them, spoilt in many ways and at random places: each is refused in one line.

Nothing is written, nothing is trained, and nobody sees a traceback.
"""

import gzip
import os
import re

import h5py
import numpy as np
import pytest
from mudata import MuData
from scipy import sparse
from typer.testing import CliRunner

from cells import SMALL, make_adata
from fedscgen.cli import app
from fedscgen.model import FedSCGEN

pytestmark = pytest.mark.filterwarnings("ignore")  # of odd cells there is more to say than that they are refused

N_CELLS, N_GENES = 60, 20


def put(value, dtype=np.float32):
    """Cells with this value somewhere."""

    def spoil(adata, rng):
        values = adata.X.toarray().astype(dtype)
        values[rng.integers(N_CELLS), rng.integers(N_GENES)] = value
        adata.X = values if rng.integers(2) else sparse.csr_matrix(values)

    return spoil


def count(adata, rng):
    adata.X = sparse.csr_matrix(rng.poisson(2, adata.shape).astype(np.float32))


def scale_back(adata, rng):
    adata.X = np.expm1(adata.X.toarray() * rng.uniform(2, 2.5))


def clear(adata, rng):
    adata.X = sparse.csr_matrix(adata.shape, dtype=np.float32)


def drop_expression(adata, rng):
    adata.X = None


def repeat(axis):
    def spoil(adata, rng):
        names = adata.obs_names if axis == "obs" else adata.var_names
        first, second = rng.choice(len(names), 2, replace=False)
        names = list(names)
        names[first] = names[second]
        setattr(adata, f"{axis}_names", names)

    return spoil


def drop_column(key):
    def spoil(adata, rng):
        del adata.obs[key]

    return spoil


def lose_labels(adata, rng):
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[rng.choice(N_CELLS, 3, replace=False)] = None
    adata.obs["cell_type"] = labels.astype("category")


def lose_site(adata, rng):
    sites = adata.obs["batch"].astype(object)
    sites.iloc[rng.integers(N_CELLS)] = None
    adata.obs["batch"] = sites.astype("category")


def leave_one_site(adata, rng):
    adata.obs["batch"] = "only"


def rename_types(how):
    def spoil(adata, rng):
        site = rng.choice(adata.obs["batch"].cat.categories)
        labels = adata.obs["cell_type"].astype(object)
        labels[adata.obs["batch"] == site] = labels[adata.obs["batch"] == site].map(how)
        adata.obs["cell_type"] = labels.astype("category")

    return spoil


def rename_genes(how):
    def spoil(adata, rng):
        adata.var_names = [how(name) for name in adata.var_names]

    return spoil


CELLS = {
    "NaN": (put(np.nan), r"X holds nan \(first at cell 'cell\d+', gene 'gene\d+'\): remove or repair"),
    "inf": (put(np.inf), r"X holds inf \(first at cell 'cell\d+', gene 'gene\d+'\): remove or repair"),
    "-inf": (put(-np.inf), r"X holds -inf \(first at cell 'cell\d+', gene 'gene\d+'\): remove or repair"),
    "1e300": (put(1e300, np.float64), r"X holds 1e\+300, which no expression is"),
    "-1e12": (put(-1e12), r"X holds 1e\+12, which no expression is"),
    "counts": (count, r"counts \(largest: \d+\), .* run scanpy.pp.normalize_total .* or --normalize"),
    "no logarithms": (scale_back, r"raw or unlogged counts .* or --normalize"),
    "zeros": (clear, r"X holds only zeros: name the layer"),
    "no X": (drop_expression, r"X is empty: put log-normalised expression there, or name a layer"),
    "cells twice": (repeat("obs"), r"obs_names are not unique: 'cell\d+' occurs 2 times; call adata.obs_"),
    "genes twice": (repeat("var"), r"var_names are not unique: 'gene\d+' occurs 2 times; call adata.var_"),
    "no types": (drop_column("cell_type"), r"obs\['cell_type'\] not found; there are 'batch', 'age': add the column"),
    "types missing": (lose_labels, r"obs\['cell_type'\] is missing for 3 cells \(first: 'cell\d+'\): fill the"),
}  # fmt: skip
SITES = {
    "no sites": (drop_column("batch"), r"obs\['batch'\] not found; there are 'cell_type', 'age'"),
    "a site missing": (lose_site, r"obs\['batch'\] is missing for 1 cell \(first: 'cell\d+'\)"),
    "one site": (leave_one_site, r"there is one site alone, 'only', so nothing to federate"),
    "upper case": (rename_types(str.upper), r"shares any of its types \('TYPE\d', is it 'type\d'\?"),
    "other types": (rename_types(lambda name: "odd" + name[-1] * 9), r"shares any of its types \('odd\d+', "),
}
NEWCOMERS = {
    "genes in capitals": (rename_genes(str.upper), r"differ in upper and lower case: 'GENE0' here is 'gene0' there"),
    "versions": (rename_genes(lambda name: f"{name}.3"), r"differ in the version: 'gene0.3' here is 'gene0' there"),
    "ids": (rename_genes(lambda name: f"ENSG{int(name[4:]):011}"), r"which are symbols, such as 'gene0', where these"),
    "types of nobody": (rename_types(lambda name: f"odd{name}"), r"no cell type of batch 'site\d' is known elsewhere"),
}


def write_empty(path, good, rng):
    path.touch()


def write_text(path, good, rng):
    path.write_text("cell,gene0\ncell0,1.5\n")


def write_noise(path, good, rng):
    path.write_bytes(rng.bytes(5000))


def cut(path, good, rng):
    path.write_bytes(good[: int(len(good) * rng.uniform(0.02, 0.95))])


def spoil_head(path, good, rng):
    path.write_bytes(rng.bytes(int(rng.integers(8, 100))) + good[100:])


def compress(path, good, rng):
    path.write_bytes(gzip.compress(good))


def make_folder(path, good, rng):
    path.mkdir()


def make_link(path, good, rng):
    path.symlink_to(path.with_name("gone"))


def make_pipe(path, good, rng):
    os.mkfifo(path)


def write_hdf5(*names):
    def write(path, good, rng):
        with h5py.File(path, "w") as file:
            for name in names:
                file[name] = rng.normal(size=(3, 3))

    return write


def write_modalities(path, good, rng):
    MuData({"atac": make_adata(n_cells=N_CELLS, n_genes=N_GENES)}).write(path)


FILES = {
    "empty": ("cells.h5ad", write_empty, r"cells.h5ad is empty: its download or copy may have stopped"),
    "text": ("cells.h5ad", write_text, r"cells.h5ad can't be read as .h5ad"),
    "noise": ("cells.h5ad", write_noise, r"cells.h5ad can't be read as .h5ad"),
    "cut": ("cells.h5ad", cut, r"cells.h5ad can't be read as .h5ad: .*truncated"),
    "head": ("cells.h5ad", spoil_head, r"cells.h5ad can't be read as .h5ad"),
    "gzip": ("cells.h5ad", compress, r"cells.h5ad can't be read as .h5ad"),
    "folder": ("cells.h5ad", make_folder, r"cells.h5ad can't be read as .h5ad"),
    "broken link": ("cells.h5ad", make_link, r"cells.h5ad does not exist"),
    "pipe": ("cells.h5ad", make_pipe, r"cells.h5ad is neither a file nor a folder"),
    "no cells": ("cells.h5ad", write_hdf5("matrix/data"), r"cells.h5ad "),
    "empty zarr": ("cells.zarr", make_folder, r"cells.zarr can't be read as .zarr"),
    "text as zarr": ("cells.zarr", write_text, r"cells.zarr can't be read as .zarr"),
    "text as h5mu": ("cells.h5mu", write_text, r"cells.h5mu can't be read as .h5mu"),
    "no rna": ("cells.h5mu", write_modalities, r"modality 'rna' is not in mdata.mod; it holds 'atac'"),
}
CASES = [
    *((command, name, "cells.h5ad", *case) for command in ("simulate", "correct") for name, case in CELLS.items()),
    *(("simulate", name, "cells.h5ad", *case) for name, case in SITES.items()),
    *(("correct", name, "cells.h5ad", *case) for name, case in NEWCOMERS.items()),
    *((command, name, *case) for command in ("simulate", "correct") for name, case in FILES.items()),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model that has landmarks."""
    adata = make_adata(n_cells=N_CELLS, n_genes=N_GENES)
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    model.references = model.get_references()
    folder = tmp_path_factory.mktemp("good") / "model"
    model.save(folder)
    return folder


def write_bad(folder, name, spoil, rng):
    """A file that is spoilt as cells, or as bytes."""
    adata = make_adata(n_cells=N_CELLS, n_genes=N_GENES)
    if spoil in [case[0] for kinds in (CELLS, SITES, NEWCOMERS) for case in kinds.values()]:
        spoil(adata, rng)
        adata.write_h5ad(folder / name)
        return
    adata.write_h5ad(folder / "good.h5ad")
    good = (folder / "good.h5ad").read_bytes()
    (folder / "good.h5ad").unlink()
    spoil(folder / name, good, rng)


@pytest.mark.parametrize(
    ("command", "kind", "name", "spoil", "message"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_bad_file_is_refused_in_one_line(model, tmp_path, monkeypatch, command, kind, name, spoil, message, seed):
    write_bad(tmp_path, name, spoil, np.random.default_rng([seed, len(kind), len(command)]))
    monkeypatch.chdir(tmp_path)
    more = ["-o", "out"] if command == "simulate" else ["-o", "out.h5ad", "-m", model, "--batch-key", "batch"]
    done = CliRunner().invoke(app, [command, name, *map(str, more)])
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stdout == ""
    assert re.fullmatch("Error: .*\n", done.stderr), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_good_file_is_none_of_them(model, tmp_path):
    make_adata(n_cells=N_CELLS, n_genes=N_GENES).write_h5ad(tmp_path / "cells.h5ad")
    command = ["correct", tmp_path / "cells.h5ad", "-o", tmp_path / "out.h5ad", "-m", model, "--batch-key", "batch"]
    assert CliRunner().invoke(app, [*map(str, command)]).exit_code == 0
    command = ["simulate", tmp_path / "cells.h5ad", "-o", tmp_path / "out", "--settings", "components"]
    assert CliRunner().invoke(app, [*map(str, command)]).exit_code == 0
