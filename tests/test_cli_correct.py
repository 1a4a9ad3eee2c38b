"""``fedscgen correct``, with files that have other genes than the model, or where nothing else was written."""

import errno
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad
from anndata.io import read_zarr
from typer.testing import CliRunner

from cells import SMALL, make_adata
from fedscgen.cli import app
from fedscgen.model import FedSCGEN


@pytest.fixture
def folder(tmp_path):
    """A model of 30 genes, and files with others."""
    adata = make_adata()
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    model.references = model.get_references()
    model.save(tmp_path / "model")
    wider = make_adata(n_genes=33)
    wider.write_h5ad(tmp_path / "wider.h5ad")
    wider[:, wider.var_names != "gene7"].copy().write_h5ad(tmp_path / "lacking.h5ad")
    wider[:, 10:].copy().write_h5ad(tmp_path / "foreign.h5ad")
    return tmp_path


def correct(folder, name, *options, out="out.h5ad"):
    command = ["correct", folder / name, "-m", folder / "model", "-o", folder / out, "--batch-key", "batch"]
    return CliRunner().invoke(app, [*map(str, command), *options])


@pytest.mark.parametrize(
    ("name", "options", "n_genes"),
    [("wider.h5ad", [], 30), ("wider.h5ad", ["--keep-genes"], 33), ("lacking.h5ad", ["--keep-genes"], 32)],
)
@pytest.mark.filterwarnings("ignore:1 of the model's 30 genes:UserWarning")
def test_the_result_has_the_files_own_genes(folder, name, options, n_genes):
    done = correct(folder, name, *options)
    assert done.exit_code == 0, done.output
    corrected = read_h5ad(folder / "out.h5ad")
    assert corrected.n_vars == n_genes
    assert ("fedscgen_corrected" in corrected.var) == bool(options)
    assert not any(key.startswith("_scvi") for key in [*corrected.obs, *corrected.uns])


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_folders_hold_what_files_do(folder):
    wider = read_h5ad(folder / "wider.h5ad")
    wider.obs["lane"] = ["a", "b"] * 75
    wider.write_h5ad(folder / "wider.h5ad")
    wider.write_zarr(folder / "wider.zarr")
    expected = FedSCGEN.load(folder / "model", wider, batch_key=["batch", "lane"]).correct()
    for kind in ("h5ad", "zarr"):
        done = correct(folder, f"wider.{kind}", "--batch-key", "lane", out=f"out.{kind}")
        assert done.exit_code == 0, done.output
        corrected = read_h5ad(folder / "out.h5ad") if kind == "h5ad" else read_zarr(folder / "out.zarr")
        for key in ("X", "fedscgen_corrected"):
            given, wanted = (one.X if key == "X" else one.layers[key] for one in (corrected, expected))
            np.testing.assert_array_equal(given.toarray(), wanted.toarray())
        np.testing.assert_array_equal(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"])
        assert set(corrected.obs["fedscgen_batch"]) == set(expected.obs["fedscgen_batch"])


def test_a_result_of_another_format_is_refused_in_one_line(folder):
    done = correct(folder, "wider.h5ad", out="out.csv")
    assert done.exit_code == 2
    assert "out.csv: a result is written as .h5ad or .zarr; let the name end so" in " ".join(done.output.split())
    assert not (folder / "out.csv").exists()


def test_a_file_without_a_third_of_the_genes_is_refused_in_one_line(folder):
    done = correct(folder, "foreign.h5ad")
    assert done.exit_code == 2
    assert "Error: 10 of the model's 30 genes are missing in var_names ('gene0', 'gene1'" in done.output
    assert "allow for more than max_missing_genes=0.05" in done.output
    assert not (folder / "out.h5ad").exists()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs.*:UserWarning")
def test_what_was_trained_is_kept_where_the_result_cannot_be_written(folder, tmp_path, monkeypatch):
    """And the message says where, with what corrects the cells from it."""
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("fedscgen._output.write_cells", fail)
        command = ["simulate", tmp_path / "cells.h5ad", "-o", tmp_path / "out", "--settings", "components"]
        done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 2
    told = re.search(
        r"out can't be written \(.*No space left on device\): what was trained is in (\S+), with", done.stderr
    )
    assert told, done.stderr
    kept = Path(told[1])
    assert kept.parent == tmp_path / "elsewhere"
    assert {path.name for path in kept.iterdir()} == {"model", "history.csv", "ledger.csv"}
    assert not (tmp_path / "out").exists()
    command = ["correct", tmp_path / "cells.h5ad", "-m", kept / "model", "-o", tmp_path / "corrected.h5ad"]
    assert CliRunner().invoke(app, [*map(str, command), "--batch-key", "batch"]).exit_code == 0
