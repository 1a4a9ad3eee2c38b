"""What anndata reads but doesn't write is repaired, or refused before anything is computed."""

import errno
import os

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from cells import make_adata
from fedscgen._output import drop_outdated, estimate_bytes, repair, try_writing, write_cells


def spoil(adata):
    """The cells as SeuratDisk and pandas 3 leave them."""
    adata.raw = adata.copy()
    raw = adata.raw.to_adata()
    raw.var["_index"] = raw.var_names
    adata.raw = raw
    adata.obs["_index"] = np.arange(adata.n_obs)
    adata.obs["note"] = pd.array(["a", None] * (adata.n_obs // 2), dtype="string")
    adata.obs.index, adata.var.index = adata.obs.index.astype("string"), adata.var.index.astype("string")
    return adata


def test_reserved_columns_and_nullable_strings_are_repaired_and_the_rest_stays(tmp_path, caplog):
    adata, before = spoil(make_adata()), make_adata()
    repair(adata)
    assert "obs, var, raw.var: renamed columns called '_index' to 'index_'" in caplog.text
    adata.write_h5ad(tmp_path / "cells.h5ad")
    written = read_h5ad(tmp_path / "cells.h5ad")
    assert list(written.obs_names) == list(before.obs_names)
    assert list(written.var_names) == list(written.raw.var_names) == list(before.var_names)
    assert list(written.obs["index_"]) == list(range(before.n_obs))
    assert list(written.raw.var["index_"]) == list(before.var_names)
    assert written.obs["note"].isna().sum() == before.n_obs // 2
    assert (written.raw.X != before.X).nnz == 0


def test_sound_cells_are_left_as_they_are(caplog):
    adata = make_adata()
    obs, var = adata.obs, adata.var
    repair(adata)
    assert adata.obs is obs
    assert adata.var is var
    assert not caplog.text


def test_cells_that_cannot_be_written_are_refused_and_leave_nothing(tmp_path):
    adata = make_adata()
    adata.uns["model"] = object()
    with pytest.raises(ValueError, match="the result could not be written, as anndata refuses these cells"):
        try_writing(adata, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_trial_leaves_nothing_and_changes_nothing(tmp_path):
    adata = AnnData(np.ones((1, 2), dtype=np.float32))
    try_writing(adata, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_correction_makes_untrue_is_taken_out_and_the_rest_stays(caplog):
    adata = make_adata()
    graph = sparse.identity(adata.n_obs, format="csr")
    for key, uns in (("", "neighbors"), ("wide_", "wide"), ("spatial_", "spatial_neighbors")):
        adata.obsp[f"{key}connectivities"], adata.obsp[f"{key}distances"] = graph, graph
        adata.uns[uns] = {"connectivities_key": f"{key}connectivities", "distances_key": f"{key}distances"}
    adata.obsm["X_pca"], adata.obsm["X_draw_graph_fa"] = adata.obsm["X_given"], adata.obsm["X_given"]
    adata.obs["_scvi_labels"], adata.obs["fedscgen_cell_type"], adata.obs["fedscgen_moved"] = 0, "T", True
    adata.uns["_scvi_uuid"], adata.uns["colours"] = "x", {"connectivities": 1}
    drop_outdated(adata, ("fedscgen_cell_type", None))
    assert set(adata.obsm) == {"X_given", "X_pca_before", "X_draw_graph_fa_before"}
    assert set(adata.obsp) == {"spatial_connectivities", "spatial_distances"}
    assert set(adata.uns) == {"spatial_neighbors", "colours"}
    assert set(adata.obs) == {"batch", "cell_type", "age", "fedscgen_cell_type"}
    assert "obsm['X_pca'] is now 'X_pca_before'" in caplog.text
    assert "uns['neighbors'] and its graphs are left out" in caplog.text
    assert "find neighbours and embeddings anew, with use_rep='X_fedscgen'" in caplog.text


def test_nothing_is_said_where_nothing_is_outdated(caplog):
    adata = make_adata()
    drop_outdated(adata)
    assert set(adata.obsm) == {"X_given"}
    assert not caplog.text


@pytest.mark.parametrize("kind", ["bare", "full"])
def test_the_estimate_is_enough_and_not_far_off(tmp_path, kind):
    adata = make_adata(n_cells=3000, n_genes=400)
    if kind == "full":
        adata.raw, adata.layers["counts"] = adata.copy(), adata.X.toarray()
        adata.obsp["graph"] = sparse.identity(3000, format="csr")
        adata.obs["name"] = [f"a cell of the name {i}" for i in range(3000)]
    write_cells(adata, tmp_path / "cells.h5ad")
    size = (tmp_path / "cells.h5ad").stat().st_size
    assert size < estimate_bytes(adata) < 2 * size


def test_cells_for_which_there_is_no_room_are_refused_by_name(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    tries = {"cells.h5ad": write_cells, "the result": lambda adata, path: try_writing(adata, path.parent)}
    for name, write in tries.items():
        with pytest.raises(OSError, match=rf"{name} needs up to 0\.2\d* MB, .* \(No space left on device\): make room"):
            write(make_adata(), tmp_path / "cells.h5ad")
    assert not list(tmp_path.iterdir())
