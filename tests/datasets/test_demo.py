import socket

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from fedscgen.datasets import demo_counts, demo_data
from fedscgen.metrics import silhouette_batch


@pytest.fixture(scope="module")
def source():
    return sc.datasets.pbmc68k_reduced()


def test_demo_is_the_same_for_the_same_seed(demo):
    again, other = demo_data(seed=0), demo_data(seed=1)
    assert (again.X != demo.X).nnz == 0
    pd.testing.assert_frame_equal(again.obs, demo.obs)
    assert (other.X != demo.X).nnz > 0
    assert (other.obs["batch"].to_numpy() != demo.obs["batch"].to_numpy()).any()


def test_counts_are_those_of_the_demo_before_it_is_normalised(demo):
    sites = demo_counts()
    assert list(sites) == list(demo.obs["batch"].cat.categories)
    for site, cells in sites.items():
        same = demo[cells.obs_names]
        assert set(same.obs["batch"]) == {site}
        assert (cells.X.data == np.rint(cells.X.data)).all()
        assert cells.X.data.min() >= 1
        normalised = same.X.multiply(same.X > 0).expm1().sum(axis=0).A1
        raw = cells.X.sum(axis=0).A1
        assert np.corrcoef(normalised, raw)[0, 1] > 0.9
        renamed = (cells.obs["cell_type"] != same.obs["cell_type"].astype(str)).all()
        assert renamed == (site == "Hospital B")
    assert all((a.X != b.X).nnz == 0 for a, b in zip(sites.values(), demo_counts().values(), strict=True))


def test_demo_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    demo_data()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_demo_needs_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the demo opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert demo_data().n_obs == 700


def test_demo_holds_plausible_log_normalised_values(demo):
    assert isinstance(demo.X, sparse.csr_matrix)
    assert demo.X.dtype == np.float32
    assert demo.X.data.min() > 0  # no negative value, and no zero stored
    assert demo.X.data.max() < 8
    totals = np.expm1(demo.X.toarray()).sum(axis=1)
    assert totals.max() < 1e4  # the other genes of the cell hold the rest
    assert not demo.obsm
    assert not demo.layers
    assert demo.raw is None


@pytest.mark.parametrize("seed", [0, 7])
def test_demo_sites_are_unequal_and_lack_types(seed):
    obs = demo_data(seed).obs
    cells = pd.crosstab(obs["cell_type"], obs["batch"])
    assert cells.sum().to_dict() == {"Hospital A": 343, "Hospital B": 219, "Hospital C": 138}
    assert cells.loc["CD34+"].tolist() == [13, 0, 0]
    assert cells.loc["CD4+/CD45RA+/CD25- Naive T"].tolist() == [5, 3, 0]
    assert (cells == 0).sum().tolist() == [0, 2, 4]


def test_demo_gene_effects_are_those_it_states(demo, source):
    """Hospital A keeps all molecules, so that its gene effects can be read off exactly."""
    at_a = (demo.obs["batch"] == "Hospital A").to_numpy()
    before, after = np.expm1(source.raw.X[at_a].toarray()), np.expm1(demo.X[at_a].toarray())
    stated = demo.uns["simulated_site_effects"]["gene_log_fold_change"]
    assert stated.index.tolist() == source.raw.var_names.tolist()
    measured = np.log(after[before > 0] / before[before > 0])
    expected = np.broadcast_to(stated["Hospital A"].to_numpy(), before.shape)[before > 0]
    np.testing.assert_allclose(measured, expected, atol=0.02)  # the source rounds its values to 3 digits
    np.testing.assert_array_equal(after[before == 0], 0)


@pytest.mark.parametrize("site", ["Hospital B", "Hospital C"])
def test_demo_thins_molecules_to_the_stated_depth(demo, source, site):
    here = (demo.obs["batch"] == site).to_numpy()
    counts = np.expm1(source.raw.X[here].toarray()) * source.obs["n_counts"].to_numpy()[here, None] / 1e4
    kept = (demo.X[here].toarray() > 0)[np.rint(counts) == 1]
    effects = demo.uns["simulated_site_effects"]
    assert kept.mean() == pytest.approx(effects["depth"][site], abs=0.02)
    stated = effects["gene_log_fold_change"][site].to_numpy()
    assert stated.std() == pytest.approx(effects["gene_effect_sd"][site], rel=0.1)
    common = counts.sum(axis=0) > 300
    after, before = (np.expm1(x[here].toarray()).sum(axis=0)[common] for x in (demo.X, source.raw.X))
    change = np.log(after / before)
    assert change - stated[common] == pytest.approx(0, abs=0.25)  # depth alone doesn't move a normalised mean
    assert np.mean(change - stated[common]) == pytest.approx(0, abs=0.03)
    assert np.corrcoef(change, stated[common])[0, 1] > 0.98


def test_demo_site_effects_part_the_sites(demo, source):
    batch, labels = demo.obs["batch"], demo.obs["cell_type"]
    with_effects = silhouette_batch(sc.pp.pca(demo.X, n_comps=20), labels, batch)
    without = silhouette_batch(sc.pp.pca(source.raw.X, n_comps=20), labels, batch)
    assert without > 0.94
    assert with_effects < 0.82


def test_demo_survives_writing_and_reading(demo, tmp_path):
    demo.write_h5ad(tmp_path / "demo.h5ad")
    read = anndata.read_h5ad(tmp_path / "demo.h5ad")
    effects = demo.uns["simulated_site_effects"]
    pd.testing.assert_frame_equal(
        read.uns["simulated_site_effects"]["gene_log_fold_change"], effects["gene_log_fold_change"]
    )
    assert read.uns["simulated_site_effects"]["depth"] == effects["depth"]
    assert (read.X != demo.X).nnz == 0
