import math
import time

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from fedscgen.datasets import simulate_sites
from fedscgen.metrics import silhouette_batch


@pytest.fixture(scope="module")
def sites():
    return simulate_sites()


def composition(adata):
    return pd.crosstab(adata.obs["batch"], adata.obs["cell_type"], dropna=False)


def share_recognised(adata, key, *, n_comps=20):
    """Share of cells whose batch or type their 10 nearest neighbours in a PCA tell."""
    names = adata.obs[key].astype(str).to_numpy()
    common = np.isin(names, [name for name, n in zip(*np.unique(names, return_counts=True), strict=True) if n >= 10])
    pca = sc.pp.pca(adata.X, n_comps=n_comps, random_state=0)[common]
    order = np.random.default_rng(0).permutation(len(pca))
    return cross_val_score(KNeighborsClassifier(10), pca[order], names[common][order], cv=3).mean()


regimes = st.fixed_dictionaries(
    {
        "n_sites": st.integers(1, 12),
        "n_types": st.integers(1, 9),
        "n_genes": st.integers(2, 40),
        "min_cells_per_site": st.integers(9, 15),
        "seed": st.integers(0, 2**32),
        "site_decay": st.floats(0, 1, exclude_min=True),
        "type_decay": st.floats(0, 1, exclude_min=True),
        "concentration": st.one_of(st.floats(1e-3, 1e4), st.just(math.inf)),
        "missing_types": st.floats(0, 1),
        "de_fraction": st.floats(0, 1),
        "batch_strength": st.floats(0, 30),
        "depth": st.floats(0.1, 1e5),
        "dispersion": st.floats(0, 100),
    }
)


@settings(max_examples=100, deadline=None)
@given(regimes, st.integers(0, 200))
def test_every_regime_keeps_its_promises(regime, extra):
    n_cells = regime["n_sites"] * regime["min_cells_per_site"] + extra
    adata = simulate_sites(n_cells=n_cells, **regime)
    assert adata.shape == (n_cells, regime["n_genes"])
    cells = composition(adata)
    assert cells.shape == (regime["n_sites"], regime["n_types"])
    assert cells.to_numpy().sum() == n_cells
    assert (cells.sum(axis=1) >= regime["min_cells_per_site"]).all()
    assert (cells.sum(axis=0) >= 1).all()
    counts = adata.layers["counts"]
    assert counts.dtype == np.int32
    assert counts.data.min(initial=1) >= 1
    assert adata.X.dtype == np.float32
    assert np.isfinite(adata.X.data).all()
    assert (adata.X.indices == counts.indices).all()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_cells(seed):
    small = {"n_cells": 120, "n_genes": 20, "n_sites": 3}
    one, again, other = (simulate_sites(seed=s, **small) for s in (seed, seed, seed + 1))
    assert (one.layers["counts"] != again.layers["counts"]).nnz == 0
    pd.testing.assert_frame_equal(one.obs, again.obs)
    assert (one.layers["counts"] != other.layers["counts"]).nnz > 0


def test_a_change_of_one_setting_leaves_the_rest_as_drawn():
    small = {"n_cells": 200, "n_genes": 50, "seed": 4}
    one, stronger = simulate_sites(batch_strength=0.2, **small), simulate_sites(batch_strength=0.6, **small)
    pd.testing.assert_frame_equal(one.obs, stronger.obs)
    before, after = one.uns["simulated_sites"], stronger.uns["simulated_sites"]
    np.testing.assert_allclose(after["batch_log_fold_change"], 3 * before["batch_log_fold_change"])
    for name in ("type_log_fold_change", "program_log_fold_change", "interaction_log_fold_change", "gene_mean"):
        np.testing.assert_array_equal(after[name], before[name])
    elsewhere = simulate_sites(concentration=0.5, **small).uns["simulated_sites"]
    np.testing.assert_array_equal(elsewhere["type_log_fold_change"], before["type_log_fold_change"])


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    simulate_sites(n_cells=100, n_genes=10)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_x_is_the_log_of_counts_per_10000(sites):
    assert isinstance(sites.X, sparse.csr_matrix)
    counts = sites.layers["counts"].toarray()
    np.testing.assert_allclose(sites.X.toarray(), np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)), rtol=1e-5)


def test_by_default_types_are_separable_and_sites_apart(sites):
    at_first = sites[sites.obs["batch"] == "site_1"]
    assert share_recognised(at_first, "cell_type") > 0.9
    assert share_recognised(sites, "batch") > 0.95
    pca = sc.pp.pca(sites.X, n_comps=20, random_state=0)
    assert silhouette_batch(pca, sites.obs["cell_type"], sites.obs["batch"]) < 0.8


def test_without_site_effects_sites_mix():
    adata = simulate_sites(
        batch_strength=0, interaction_strength=0, depth_variation=0, concentration=math.inf, missing_types=0
    )
    assert share_recognised(adata, "batch") < adata.obs["batch"].value_counts(normalize=True).max() + 0.05
    pca = sc.pp.pca(adata.X, n_comps=20, random_state=0)
    assert silhouette_batch(pca, adata.obs["cell_type"], adata.obs["batch"]) > 0.95


def test_differential_expression_parts_the_types():
    alike = {
        "n_sites": 1,
        "n_cells": 600,
        "concentration": math.inf,
        "interaction_strength": 0,
        "within_type_strength": 0,
    }
    recognisable = [
        share_recognised(simulate_sites(de_strength=strength, **alike), "cell_type") for strength in (0.0, 0.3, 0.6)
    ]
    assert recognisable[0] < 0.4
    assert recognisable[0] + 0.1 < recognisable[1] < 0.9 < recognisable[2]


def test_many_small_sites():
    adata = simulate_sites(n_sites=20, n_cells=1200, site_decay=1)
    assert composition(adata).sum(axis=1).tolist() == [60] * 20
    assert adata.obs["batch"].cat.categories[[0, 19]].tolist() == ["site_01", "site_20"]


def test_site_sizes_decay_above_the_minimum():
    sizes = composition(simulate_sites(n_cells=2000, site_decay=0.5, min_cells_per_site=20, n_genes=5)).sum(axis=1)
    assert sizes.sum() == 2000
    np.testing.assert_allclose((sizes - 20) / 1900, 0.5 ** np.arange(5) / 1.9375, atol=1e-3)


def test_types_become_rare_with_decay():
    cells = composition(
        simulate_sites(n_cells=20000, type_decay=0.3, n_genes=2, concentration=math.inf, missing_types=0)
    ).sum(axis=0)
    np.testing.assert_allclose(cells / 20000, 0.3 ** np.arange(6) / (0.3 ** np.arange(6)).sum(), atol=0.01)


def test_small_concentration_gives_each_site_few_types():
    def largest_share(concentration):
        cells = composition(simulate_sites(n_sites=20, n_cells=4000, n_genes=2, concentration=concentration))
        return (cells.max(axis=1) / cells.sum(axis=1)).mean()

    assert largest_share(0.5) > 0.75
    assert largest_share(100) < 0.45


def test_all_types_missing_leaves_homes_and_one_type_a_site():
    cells = composition(simulate_sites(n_sites=8, n_types=4, missing_types=1, n_genes=2))
    assert ((cells > 0).sum(axis=1) <= 2).all()
    assert (cells.sum(axis=0) > 0).all()


def test_share_of_missing_types_is_the_stated_one():
    cells = composition(
        simulate_sites(n_sites=40, n_types=20, n_cells=20000, n_genes=2, missing_types=0.5, type_decay=1)
    )
    assert (cells == 0).to_numpy().mean() == pytest.approx(0.5, abs=0.07)


def test_depth_is_the_median_and_differs_between_sites():
    adata = simulate_sites(depth=5000, depth_variation=0.8, n_sites=4, n_genes=300, dispersion=0, seed=1)
    molecules = np.asarray(adata.layers["counts"].sum(axis=1)).ravel()
    medians = pd.Series(molecules).groupby(adata.obs["batch"].to_numpy()).median()
    stated = pd.Series(adata.uns["simulated_sites"]["site_depth"])
    assert (medians / stated).to_numpy() == pytest.approx(1, abs=0.1)
    assert np.log(stated).std() > 0.3
    alike = simulate_sites(depth=5000, depth_variation=0, n_genes=300).uns["simulated_sites"]["site_depth"]
    assert set(alike.values()) == {5000.0}


def test_counts_have_the_stated_mean_and_variance():
    """One type at one site, all cells alike in depth and activity: plain negative binomial counts."""
    adata = simulate_sites(
        n_sites=1, n_types=1, n_cells=20000, n_genes=30, library_variation=0, within_type_strength=0, dispersion=0.5
    )
    truth = adata.uns["simulated_sites"]
    log_rates = np.log(truth["gene_mean"]) + sum(
        values.reshape(-1)
        for values in (
            truth["type_log_fold_change"].to_numpy(),
            truth["batch_log_fold_change"].to_numpy(),
            truth["interaction_log_fold_change"],
        )
    )
    rates = np.exp(log_rates)
    mean = truth["site_depth"]["site_1"] * rates / rates.sum()
    counts = adata.layers["counts"].toarray()
    often = mean > 0.5
    np.testing.assert_allclose(counts.mean(axis=0)[often], mean[often], rtol=0.04)
    np.testing.assert_allclose(counts.var(axis=0)[often], (mean + 0.5 * mean**2)[often], rtol=0.1)


def test_the_truth_has_the_stated_strengths():
    truth = simulate_sites(
        n_genes=4000,
        n_cells=200,
        de_fraction=0.2,
        de_strength=0.7,
        within_type_strength=0.4,
        batch_strength=0.5,
        interaction_strength=0.25,
    ).uns["simulated_sites"]
    for name, strength in (("type_log_fold_change", 0.7), ("program_log_fold_change", 0.4)):
        changes = truth[name].to_numpy()
        assert np.mean(changes != 0) == pytest.approx(0.2, abs=0.02)
        assert changes[changes != 0].std() == pytest.approx(strength, rel=0.05)
    assert truth["batch_log_fold_change"].to_numpy().std() == pytest.approx(0.5, rel=0.05)
    assert truth["interaction_log_fold_change"].std() == pytest.approx(0.25, rel=0.05)
    assert truth["interaction_log_fold_change"].shape == (5, 6, 4000)
    assert truth["gene_mean"].mean() == pytest.approx(2, rel=0.1)


def test_a_programme_shows_within_its_type():
    adata = simulate_sites(
        n_sites=1, n_types=2, n_cells=800, type_decay=1, within_type_strength=1.0, library_variation=0
    )
    weights = adata.uns["simulated_sites"]["program_log_fold_change"]
    for name in weights.columns:
        of_type = adata[adata.obs["cell_type"] == name]
        scores = of_type.X @ weights[name].to_numpy()
        assert np.corrcoef(scores, of_type.obs["program"])[0, 1] > 0.9


def test_cells_survive_writing_and_reading(sites, tmp_path):
    sites.write_h5ad(tmp_path / "sites.h5ad")
    read = anndata.read_h5ad(tmp_path / "sites.h5ad")
    truth, again = sites.uns["simulated_sites"], read.uns["simulated_sites"]
    assert (read.layers["counts"] != sites.layers["counts"]).nnz == 0
    assert again["parameters"] == truth["parameters"]
    assert again["site_depth"] == truth["site_depth"]
    pd.testing.assert_frame_equal(again["batch_log_fold_change"], truth["batch_log_fold_change"])


def test_two_thousand_cells_take_little_time():
    start = time.process_time()
    simulate_sites(n_cells=2000, n_genes=1000)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_types": 0}, "n_types=0: must be at least 1"),
        ({"missing_types": 1.2}, "missing_types=1.2: must be from 0 to 1"),
        ({"de_fraction": -0.1}, "de_fraction=-0.1: must be from 0 to 1"),
        ({"type_decay": 0}, "type_decay=0: must be above 0 and at most 1"),
        ({"site_decay": 1.1}, "site_decay=1.1: must be above 0 and at most 1"),
        ({"concentration": 0}, "concentration=0: must be at least 0.001"),
        ({"depth": 0}, "depth=0: must be above 0"),
        ({"depth": math.inf}, "depth=inf: must be finite"),
        ({"batch_strength": -1}, "batch_strength=-1: must be finite and not negative"),
        ({"dispersion": math.nan}, "dispersion=nan: must be finite and not negative"),
        ({"n_cells": 99}, "n_cells=99 are too few for 5 sites of at least min_cells_per_site=20"),
        (
            {"n_types": 11, "min_cells_per_site": 2},
            "min_cells_per_site=2 are too few for 11 types at 5 sites.*at least 3",
        ),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_sites(**options)
