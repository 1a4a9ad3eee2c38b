"""Several AnnData, one of each site: their own columns stay, and none is refused for a column that others have."""

import numpy as np
import pytest
from anndata import read_h5ad
from scipy import sparse

from cells import make_adata
from quick import QUICK, simulate


@pytest.fixture
def parts(adata):
    """Two sites, with donors' batches of their own in obs["batch"]."""
    return {"north": adata[:80].copy(), "south": adata[80:].copy()}


def test_a_sites_own_column_stays_and_the_sites_get_another(parts, adata, caplog):
    result = simulate(parts, **QUICK)
    assert result.site_key == "site"
    assert list(result.corrected.obs["batch"]) == list(adata.obs["batch"])
    assert list(result.corrected.obs["site"]) == ["north"] * 80 + ["south"] * 70
    assert "site 'north' has a column obs['batch'] of its own, which stays: the sites are in obs['site']" in caplog.text
    assert "site" not in parts["north"].obs


def test_a_column_that_says_the_same_is_no_other(parts):
    for name, cells in parts.items():
        cells.obs["batch"] = name
    assert simulate(parts, **QUICK).site_key == "batch"


def test_columns_that_not_all_sites_have_are_kept_and_can_be_written(parts, tmp_path):
    north, south = parts["north"], parts["south"]
    north.obs["doublet"], north.obs["donor"], north.obs["code"] = False, "p1", 7
    south.obs["stage"], south.obs["code"], south.obs["note"] = 2, "x", None
    corrected = simulate(parts, **QUICK).corrected
    corrected.write_h5ad(tmp_path / "cells.h5ad")
    obs = read_h5ad(tmp_path / "cells.h5ad").obs
    assert obs["doublet"].isna().sum() == obs["donor"].isna().sum() == 70
    assert not obs["doublet"][:80].any()
    assert set(obs["donor"][:80]) == {"p1"}
    assert obs["stage"].isna().sum() == 80
    assert [str(obs["code"].iloc[0]), str(obs["code"].iloc[-1])] == ["7", "x"]


def test_batches_that_only_some_sites_tell_apart(parts):
    del parts["south"].obs["batch"]
    result = simulate(parts, "hospital", batch_key="batch", **QUICK)
    assert result.types.groupby("site")["batch"].nunique().to_dict() == {"north": 3, "south": 1}
    assert result.corrected.obs["fedscgen_moved"].all()
    of_model = result.model.adata.obs["batch"]
    assert set(of_model) == {"site0", "site1", "site2", "south"}
    with pytest.raises(KeyError, match=r"obs\['ward'\] not found; there are 'batch', 'cell_type', 'age'"):
        simulate(parts, "hospital", batch_key="ward", **QUICK)


def test_layers_and_arrays_that_all_have_are_kept(parts):
    parts["north"].layers["counts"] = parts["north"].X.copy()
    parts["south"].obsm["X_given"] = np.zeros((70, 5))
    corrected = simulate(parts, "hospital", **QUICK).corrected
    assert set(corrected.layers) - {None} == {"fedscgen_corrected"}  # None is X, for later versions of anndata
    assert set(corrected.obsm) == {"X_fedscgen"}


@pytest.mark.parametrize("expression", [None, "X", "fedscgen_corrected"])
def test_sites_one_by_one_are_corrected_as_the_same_cells_in_one(parts, adata, expression):
    adata.obs["hospital"] = ["north"] * 80 + ["south"] * 70
    for name, cells in parts.items():
        cells.obs["hospital"], cells.raw, cells.layers["own"] = name, cells, 2 * cells.X
    before = {name: cells.copy() for name, cells in parts.items()}
    joint, joined = (
        simulate(data, "hospital", expression=expression, **QUICK).corrected for data in (adata, parts)
    )  # fmt: skip
    for name, cells in parts.items():
        assert_same(cells.X, before[name].X)
        assert_same(cells.layers["own"], before[name].layers["own"])
        assert cells.raw is not None
    assert_same(joined.X, joint.X)
    assert_same(joined.obsm["X_fedscgen"], joint.obsm["X_fedscgen"])
    assert "own" in joined.layers
    if expression == "fedscgen_corrected":
        assert_same(joined.layers[expression], joint.layers[expression])


def assert_same(matrix, other):
    dense = [x.toarray() if sparse.issparse(x) else x for x in (matrix, other)]
    np.testing.assert_array_equal(*dense)


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_cells_without_corrected_expression_are_not_copied(adata, kind):
    adata.X = adata.X.toarray() if kind == "dense" else adata.X.asformat(kind)
    adata.raw = adata
    corrected = simulate(adata, expression=None, **QUICK).corrected
    given, shared = (x if kind == "dense" else x.data for x in (adata.X, corrected.X))
    assert np.shares_memory(given, shared)
    with pytest.raises(ValueError, match="read-only"):
        shared[:] = 1.0
    given[:] = given  # the caller's own may still be written to
    assert corrected.raw.shape == adata.shape


def test_one_column_is_not_two_keys(adata):
    with pytest.raises(ValueError, match=r"batch_key and labels_key both name obs\['cell_type'\]: name two columns"):
        simulate(adata, batch_key="cell_type", **QUICK)


@pytest.mark.parametrize("split", [False, True])
def test_a_rerun_replaces_what_an_earlier_correction_left(split, caplog):
    cells = make_adata()
    cells.obsm["X_fedscgen"], cells.obsm["X_umap"] = np.full((150, 33), np.nan), np.ones((150, 2))
    cells.uns["fedscgen_types"], cells.obs["_scvi_batch"] = "old", 0
    cells.obs["fedscgen_moved"] = "old"
    data = {"north": cells[:80].copy(), "south": cells[80:].copy()} if split else cells
    corrected = simulate(data, "hospital" if split else "batch", **QUICK).corrected
    assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    assert corrected.obsm["X_fedscgen"].shape[1] < 33
    assert "X_umap" not in corrected.obsm
    assert (corrected.obsm["X_umap_before"] == 1).all()
    assert corrected.obs["fedscgen_moved"].dtype == bool
    assert not any(key.startswith("_scvi") for key in [*corrected.obs, *corrected.uns])
    assert "obsm['X_umap'] is now 'X_umap_before'" in caplog.text
    assert {"X_fedscgen", "X_umap"} <= set(cells.obsm), "the caller's cells stay as they are"


def test_cells_on_disk_are_read(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    on_disk = read_h5ad(tmp_path / "cells.h5ad", backed="r")
    for data, key in ((on_disk, "batch"), ({"north": on_disk, "south": make_adata(seed=7)}, "hospital")):
        expected = adata if data is on_disk else {**data, "north": adata}
        results = [simulate(given, key, seed=0, **QUICK).corrected for given in (data, expected)]
        np.testing.assert_array_equal(results[0].obsm["X_fedscgen"], results[1].obsm["X_fedscgen"])
    on_disk.file.close()


@pytest.mark.parametrize("split", [False, True])
def test_genes_that_the_model_does_not_know_are_kept_on_request(adata, tmp_path, split):
    first = simulate(adata[:, :25].copy(), **QUICK)
    first.model.save(tmp_path / "model")
    data = {"north": adata[:80].copy(), "south": adata[80:, ::-1].copy()} if split else adata
    options = {"init_model": tmp_path / "model", **QUICK}
    kept = simulate(data, "hospital" if split else "batch", keep_genes=True, **options).corrected
    assert list(kept.var_names) == list(adata.var_names)
    assert list(kept.var["fedscgen_corrected"]) == [True] * 25 + [False] * 5
    others = kept.var_names[25:]
    np.testing.assert_array_equal(kept.to_df("fedscgen_corrected")[others], adata.to_df()[others])
    without = simulate(data, "hospital" if split else "batch", **options).corrected
    assert list(without.var_names) == list(adata.var_names[:25])
    np.testing.assert_array_equal(
        without.to_df("fedscgen_corrected"), kept.to_df("fedscgen_corrected")[without.var_names]
    )
