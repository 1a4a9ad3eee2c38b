"""What anndata reads but doesn't write is repaired, or refused before anything is computed."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from cells import make_adata
from fedscgen._output import repair, try_writing


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
