"""Cells that stay in a file, and results that are written while they are computed."""

import contextlib

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scvi
import zarr
from anndata import read_h5ad
from anndata.io import read_zarr, sparse_dataset
from scipy import sparse

from cells import SMALL, make_adata
from fedscgen._files import create_whole
from fedscgen._read_cells import open_cells
from fedscgen.model import FedSCGEN, _corrected_cells

EXPECTED = "fedscgen_corrected"


def full(adata):
    """The cells with all that an AnnData can hold."""
    adata.layers["counts"] = sparse.csr_matrix(adata.X > 0, dtype=np.int64)
    adata.layers["scaled"] = adata.X.toarray().astype(np.float64)
    adata.raw = adata[:, ::-1].copy()
    adata.obs["note"] = ["a", "b"] * (adata.n_obs // 2)
    adata.varm["loadings"] = np.ones((adata.n_vars, 2))
    adata.obsp["spatial"] = sparse.identity(adata.n_obs, format="csr")
    adata.uns["nested"] = {"values": np.arange(3), "name": "x"}
    return adata


def read(path):
    return read_h5ad(path) if path.suffix == ".h5ad" else read_zarr(path)


def same(one, other):
    """Both matrices hold the same bits, in the same form."""
    assert sparse.issparse(one) == sparse.issparse(other)
    assert one.dtype == other.dtype
    parts = ("data", "indices", "indptr") if sparse.issparse(one) else ("T",)
    for part in parts:
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def equal(one, other):
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    assert set(one.layers) == set(other.layers)
    assert set(one.uns) == set(other.uns)
    pd.testing.assert_frame_equal(one.uns["fedscgen_types"], other.uns["fedscgen_types"], check_dtype=False)
    for name in ("obsm", "varm", "obsp"):
        held, expected = getattr(one, name), getattr(other, name)
        assert set(held) == set(expected)
        for key in expected:
            same(held[key], expected[key])
    same(one.X, other.X)
    for key in other.layers:
        same(one.layers[key], other.layers[key])
    assert (one.raw is None) == (other.raw is None)
    if one.raw is not None:
        same(one.raw.X, other.raw.X)
        pd.testing.assert_frame_equal(one.raw.var, other.raw.var)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize(
    "options",
    [{}, {"expression": "X"}, {"denoise": True, "reencode": True}, {"reencode": True}, {"expression": None}],
    ids=str,
)
def test_a_file_holds_what_memory_would(trained, tmp_path, suffix, options):
    adata, out = full(make_adata()), tmp_path / f"out{suffix}"
    before = adata.copy()
    expected = trained.correct(adata, batch_size=40, **options)
    expected.strings_to_categoricals()  # as whenever anndata writes
    light = trained.correct(adata, batch_size=40, out=out, **options)
    equal(read(out), expected)
    assert light.X is None
    assert not light.layers
    assert light.raw is None
    pd.testing.assert_frame_equal(light.obs, expected.obs)
    equal_before = (adata.X != before.X).nnz == 0 and adata.obs.equals(before.obs) and adata.var.equals(before.var)
    assert equal_before, "the caller's cells stay as they are"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("keep_genes", [False, True])
@pytest.mark.filterwarnings("ignore:1 of the model's 30 genes:UserWarning")
def test_other_genes_are_served_in_a_file_as_in_memory(trained, tmp_path, suffix, keep_genes):
    adata = make_adata(n_genes=40)[:, ::-1]
    adata = full(adata[:, adata.var_names != "gene7"].copy())
    out = tmp_path / f"out{suffix}"
    expected = trained.correct(adata, keep_genes=keep_genes)
    expected.strings_to_categoricals()
    trained.correct(adata, keep_genes=keep_genes, out=out)
    assert expected.n_vars == (39 if keep_genes else 29)
    equal(read(out), expected)


@contextlib.contextmanager
def opened(form, adata, folder):
    """The cells, with expression somewhere else than in memory."""
    adata.write_h5ad(folder / "in.h5ad")
    if form == "backed":
        cells = read_h5ad(folder / "in.h5ad", backed="r")
        yield cells
        cells.file.close()
    elif form == "h5ad":
        with open_cells(folder / "in.h5ad") as cells:
            yield cells
    elif form.startswith("zarr"):
        with anndata.settings.override(zarr_write_format=int(form[-1])):
            adata.write_zarr(folder / "in.zarr")
        with open_cells(folder / "in.zarr") as cells:
            yield cells
    else:
        array = pytest.importorskip("dask.array", reason="needs dask")
        cells = adata.copy()
        cells.X = array.from_array(cells.X, chunks=(40, cells.n_vars))
        yield cells


FORMS = ["backed", "h5ad", "zarr 2", "zarr 3", "dask"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning", "ignore:zarr v3 autosharding:UserWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")
def test_cells_that_are_not_in_memory_train_and_are_corrected_alike(tmp_path, form, kind):
    results, weights = [], []
    for on_disk in (False, True):
        scvi.settings.seed = 1
        adata = make_adata()
        adata.X = adata.X if kind == "sparse" else adata.X.toarray()
        with opened(form, adata, tmp_path) if on_disk else contextlib.nullcontext(adata) as cells:
            FedSCGEN.setup_anndata(cells)
            model = FedSCGEN(cells, **SMALL)
            model.train(2, accelerator="cpu", enable_progress_bar=False)
            weights.append(model.get_weights())
            model.correct(out=tmp_path / f"{on_disk}.h5ad")
            results.append(
                (model.get_latent_representation(), model.correct(), read_h5ad(tmp_path / f"{on_disk}.h5ad"))
            )
            alone = model.correct(expression=None)
            np.testing.assert_array_equal(alone.obsm["X_fedscgen"], results[-1][1].obsm["X_fedscgen"])
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name], err_msg=name)
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for expected, given in zip(results[0][1:], results[1][1:], strict=True):
        for key in ("X", EXPECTED):
            same(*(r.X if key == "X" else r.layers[key] for r in (expected, given)))
        np.testing.assert_array_equal(expected.obsm["X_fedscgen"], given.obsm["X_fedscgen"])


def test_expression_that_lies_by_columns_in_a_file_is_refused_with_the_remedy(trained, adata, tmp_path):
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "columns.h5ad")
    with open_cells(tmp_path / "columns.h5ad") as cells:
        with pytest.raises(ValueError, match=r"X lies in its file by columns \(CSC\).*adata\.to_memory\(\)"):
            trained.correct(cells, out=tmp_path / "out.h5ad")
        trained.correct(cells.to_memory(), out=tmp_path / "out.h5ad")
    assert sparse.isspmatrix_csr(read_h5ad(tmp_path / "out.h5ad").layers[EXPECTED])


def test_what_anndata_reads_lazily_is_refused_with_the_remedy(trained, adata, tmp_path):
    pytest.importorskip("dask", reason="needs dask")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    lazy = anndata.experimental.read_lazy(tmp_path / "cells.h5ad")
    with pytest.raises(TypeError, match=r"obs is Dataset2D, as anndata reads lazily.*backed=\"r\""):
        trained.correct(lazy)


@pytest.mark.parametrize(
    ("place", "error", "told"),
    [
        ("out.csv", ValueError, r"out .*out\.csv: a result is written as \.h5ad or \.zarr"),
        ("there.h5ad", FileExistsError, "delete it, or choose another name"),
        ("file/out.h5ad", NotADirectoryError, "choose a place in a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_cell_is_encoded(
    trained, tmp_path, monkeypatch, place, error, told
):
    for name in ("there.h5ad", "file"):
        (tmp_path / name).write_text("mine")
    monkeypatch.setattr(trained, "_encode", None)
    with pytest.raises(error, match=told):
        trained.correct(make_adata(), out=tmp_path / place)
    assert {path.name for path in tmp_path.iterdir()} == {"there.h5ad", "file"}


def test_a_lack_of_room_is_told_before_any_cell_is_encoded(trained, adata, tmp_path, monkeypatch):
    asked = []
    room = _corrected_cells.check_room
    monkeypatch.setattr(_corrected_cells, "check_room", lambda path, n: asked.append(n) or room(path, n * 10**9))
    monkeypatch.setattr(trained, "_encode", None)
    with pytest.raises(OSError, match=r"needs up to .* MB, for which there is no room"):
        trained.correct(adata, out=tmp_path / "out.h5ad")
    assert asked[0] > 2 * adata.X.data.nbytes
    assert not list(tmp_path.iterdir())


def test_nothing_stays_of_a_result_that_could_not_be_completed(trained, adata, tmp_path, monkeypatch):
    decode, calls = trained._decode_change, []

    def fail_later(*vectors):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("out of luck")
        return decode(*vectors)

    monkeypatch.setattr(trained, "_decode_change", fail_later)
    with pytest.raises(RuntimeError, match="out of luck"):
        trained.correct(adata, batch_size=40, out=tmp_path / "out.h5ad")
    assert not list(tmp_path.iterdir())


def test_each_cell_is_encoded_once_and_decoded_at_most_twice(trained, adata, tmp_path, monkeypatch):
    seen = {"_encode": 0, "_decode": 0, "_decode_change": 0}

    def count(name):
        method = getattr(trained, name)

        def counted(vectors, *others):
            seen[name] += len(vectors)
            return method(vectors, *others)

        monkeypatch.setattr(trained, name, counted)

    for name in seen:
        count(name)
    n_cells = adata.n_obs
    trained.correct(adata, out=tmp_path / "a.h5ad")
    assert seen == {"_encode": n_cells, "_decode": 0, "_decode_change": n_cells}
    trained.correct(adata.copy(), expression=None)
    assert seen == {"_encode": 2 * n_cells, "_decode": 0, "_decode_change": n_cells}
    trained.correct(adata, denoise=True, reencode=True, out=tmp_path / "b.h5ad")
    assert seen == {"_encode": 4 * n_cells, "_decode": n_cells, "_decode_change": n_cells}


def test_a_change_is_that_of_what_both_vectors_are_decoded_to(trained):
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 20, SMALL["n_latent"])).astype(np.float32)
    expected = trained._decode(after) - trained._decode(before)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(trained._decode_change(before, after), expected, atol=1e-5)


def test_latent_vectors_alone_share_expression_and_cannot_change_it(trained, adata):
    adata.layers["dense"] = adata.X.toarray()
    corrected = trained.correct(expression=None)
    assert np.shares_memory(corrected.X.data, adata.X.data)
    assert np.shares_memory(corrected.layers["dense"], adata.layers["dense"])
    for values in (corrected.X.data, corrected.layers["dense"]):
        with pytest.raises(ValueError, match="read-only"):
            values[:] = 0
    own = corrected.copy()
    own.X.data[:] = 0
    assert adata.X.sum() > 0


def test_the_indices_of_few_entries_are_short(trained, adata, tmp_path):
    """Long ones are slower to read for all programs that use the file."""
    trained.correct(adata, out=tmp_path / "out.h5ad")
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file[f"layers/{EXPECTED}/indptr"].dtype == np.int32
        assert sparse_dataset(file["X"]).shape == adata.shape


def test_a_folder_is_of_the_chosen_format(trained, adata, tmp_path):
    for version in (2, 3):
        with anndata.settings.override(zarr_write_format=version):
            trained.correct(adata, out=tmp_path / f"{version}.zarr")
        assert zarr.open_group(str(tmp_path / f"{version}.zarr"), mode="r").metadata.zarr_format == version


def test_a_place_may_be_one_that_appears_later(trained, adata, tmp_path):
    with create_whole(tmp_path / "later.h5ad", overwrite=False, remedy="") as target:
        trained.correct(adata, out=target)
        assert not (tmp_path / "later.h5ad").exists()
    assert read_h5ad(tmp_path / "later.h5ad").n_obs == adata.n_obs
