"""What each method does with cells."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from fedscgen.benchmark import Cells, list_methods
from fedscgen.benchmark._fedscgen import round_by_round
from fedscgen.datasets import simulate_sites
from fedscgen.model import FedSCGEN
from quick import simulate

pytestmark = pytest.mark.filterwarnings("ignore")  # scvi-tools, Lightning and jax warn as they like
METHODS = list_methods()
NETWORK = {"n_hidden": 16, "n_latent": 4}
QUICK = {
    "scvi": {"max_epochs": 2},
    "scanvi": {"max_epochs": 2, "scanvi_epochs": 2},
    "scgen": {"max_epochs": 2, "model": NETWORK},
    "local": {"n_rounds": 2, "n_epochs": 1, "model": NETWORK},
    "fedscgen": {"n_rounds": 2, "n_epochs": 1, "model": NETWORK},
    "fedscgen-masked": {"n_rounds": 1, "n_epochs": 1, "model": NETWORK},
}


@pytest.fixture(scope="module")
def three_sites():
    return simulate_sites(n_sites=3, n_types=3, n_cells=180, n_genes=60)


def embed(name, adata, train=None, **settings):
    scvi.settings.seed = 3
    return METHODS[name](Cells(adata, adata if train is None else train, seed=3), {**QUICK.get(name, {}), **settings})


@pytest.mark.parametrize("name", ["pca", "harmony", *QUICK])
def test_all_cells_are_embedded_the_same_way_twice_and_left_as_they_were(name, three_sites):
    if name == "harmony":
        pytest.importorskip("harmonypy")
    before = three_sites.copy()
    first, second = embed(name, three_sites), embed(name, three_sites)
    assert first.shape[0] == three_sites.n_obs
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert list(three_sites.obs) == list(before.obs)
    assert set(three_sites.uns) == set(before.uns)
    assert (three_sites.X != before.X).nnz == 0


# fedscgen-crypten is fedscgen with compute processes, which take long to start
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"harmony", "scvi", "scanvi", "local", "fedscgen-crypten"}))
def test_a_batch_left_out_of_training_is_embedded_too(name, three_sites):
    assert METHODS[name].takes_newcomers
    train = three_sites[three_sites.obs["batch"] != "site_2"].copy()
    assert embed(name, three_sites, train).shape[0] == three_sites.n_obs


def test_scgen_is_the_model_of_the_package(three_sites):
    adata = three_sites.copy()
    scvi.settings.seed = 3
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **NETWORK)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    corrected = model.correct(references=model.get_references(kind="dominant"))
    np.testing.assert_array_equal(embed("scgen", three_sites), corrected.obsm["X_fedscgen"])


def federation(adata, **options):
    scvi.settings.seed = 3
    options = {"n_rounds": 2, "n_epochs": 1, "model": NETWORK, **options}
    return simulate(adata, accelerator="cpu", show_progress=False, **options)


@pytest.mark.parametrize(("embedding", "key"), [("latent", "X_fedscgen"), ("reencoded", "X_fedscgen_reencoded")])
def test_fedscgen_is_the_simulated_federation(three_sites, embedding, key):
    result = federation(three_sites, reencode=True)
    np.testing.assert_array_equal(embed("fedscgen", three_sites, embedding=embedding), result.corrected.obsm[key])


def test_expression_is_what_the_sites_and_scgen_correct(three_sites):
    corrected = federation(three_sites, expression="X").corrected.X
    scvi.settings.seed = 3
    cells = Cells(three_sites, three_sites, seed=3)
    expression = METHODS["fedscgen"].expression(cells, {**QUICK["fedscgen"], "embedding": "sampled"})
    assert expression.shape == three_sites.shape
    assert (expression != corrected).nnz == 0
    assert (expression != three_sites.X).nnz > 0
    adata = three_sites.copy()
    scvi.settings.seed = 3
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **NETWORK)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = 3
    centralized = METHODS["scgen"].expression(cells, QUICK["scgen"])
    references = model.get_references(kind="dominant")
    assert (centralized != model.correct(expression="X", references=references).X).nnz == 0
    assert {name for name, method in METHODS.items() if method.decodes} == {
        name for name in METHODS if name.startswith(("scgen", "fedscgen"))
    }


def means_by_site(embedding, adata, label):
    """Mean of a type's cells at each site that has any; shape (n_sites, n_dimensions)."""
    of_type = adata.obs["cell_type"] == label
    sites = adata.obs["batch"]
    return np.stack([embedding[of_type & (sites == site)].mean(axis=0) for site in sites[of_type].unique()])


@pytest.mark.parametrize(("name", "settings"), [("scgen", {}), ("fedscgen", {"reference": "dominant"})])
def test_a_sample_is_corrected_by_references_and_shifts_of_that_very_sample(name, settings, three_sites):
    """Its means then meet exactly; with statistics of other values they would miss by the sample's noise."""
    sampled = embed(name, three_sites, embedding="sampled", **settings)
    np.testing.assert_array_equal(embed(name, three_sites, embedding="sampled", **settings), sampled)
    assert np.abs(sampled - embed(name, three_sites, **settings)).mean() > 1e-3
    for label in three_sites.obs["cell_type"].cat.categories:
        means = means_by_site(sampled, three_sites, label)
        assert len(means) > 1
        np.testing.assert_allclose(means, means[:1].repeat(len(means), axis=0), atol=1e-5)


def test_a_sample_of_a_batch_left_out_meets_the_references_of_the_others(three_sites):
    train = three_sites[three_sites.obs["batch"] != "site_1"].copy()
    sampled = embed("scgen", three_sites, train, embedding="sampled")
    n_sites = train.obs.groupby("cell_type", observed=True)["batch"].nunique()
    shared = n_sites.index[n_sites == 2]
    assert len(shared)
    for label in shared:
        means = means_by_site(sampled, three_sites, label)
        np.testing.assert_allclose(means, means[:1].repeat(len(means), axis=0), atol=1e-5)


def test_a_snapshot_of_the_last_round_may_be_sampled(three_sites):
    scvi.settings.seed = 3
    cells = Cells(three_sites, three_sites, seed=3)
    *_, (n_rounds, last) = round_by_round(cells, **QUICK["fedscgen"], embedding="sampled", reference="mean")
    assert n_rounds == 2
    means = means_by_site(last, three_sites, "type_1")
    np.testing.assert_allclose(means, means[:1].repeat(len(means), axis=0), atol=1e-5)


@pytest.mark.parametrize("embedding", ["latent", "sampled"])
def test_a_batch_left_out_is_corrected_with_the_settings_of_the_federation(three_sites, embedding):
    left_out = (three_sites.obs["batch"] == "site_2").to_numpy()
    train = three_sites[~left_out].copy()
    raw, shrunk = (
        embed("fedscgen", three_sites, train, embedding=embedding, shrink=shrink, reference="mean")
        for shrink in (False, True)
    )
    assert np.abs(raw - shrunk)[left_out].max() > 1e-4


def test_an_unknown_embedding_is_named(three_sites):
    with pytest.raises(ValueError, match="unknown embedding 'latnet': choose one of 'latent', 'reencoded', 'sampled'"):
        embed("scgen", three_sites, embedding="latnet")


def test_a_site_alone_learns_from_its_own_cells_only(three_sites):
    """Cells of a type that their own site has most of stay where the site's own model has them."""
    counts = three_sites.obs.groupby(["cell_type", "batch"], observed=True).size().unstack(fill_value=0)
    dominant = three_sites.obs["cell_type"].map(counts.idxmax(axis=1)).astype(str)
    kept = ((three_sites.obs["batch"] == "site_1") & (dominant == "site_1")).to_numpy()
    assert kept.any()
    embedding = embed("local", three_sites, reference="dominant")
    own = three_sites[three_sites.obs["batch"] == "site_1"].copy()
    FedSCGEN.setup_anndata(own)
    torch.manual_seed(3)
    model = FedSCGEN(own, **NETWORK)
    model.begin_together([model])
    model.train_local(2, accelerator="cpu")
    latent = model.get_latent_representation()
    np.testing.assert_allclose(
        embedding[kept], latent[kept[(three_sites.obs["batch"] == "site_1").to_numpy()]], atol=1e-5
    )
    for label in counts.index:
        means = means_by_site(embedding, three_sites, label)
        np.testing.assert_allclose(means, means[:1].repeat(len(means), axis=0), atol=1e-4)


def test_sites_alone_begin_with_the_same_weights(three_sites):
    """Of the same cells at two sites the same model comes; a seed apart, another."""
    twins = anndata.concat([three_sites[three_sites.obs["batch"] == "site_1"]] * 2, index_unique="-")
    twins.obs["batch"] = pd.Categorical(np.repeat(["a", "b"], twins.n_obs // 2))
    twins.obs["cell_type"] = twins.obs["cell_type"].astype("category")
    first, second = np.split(embed("local", twins), 2)
    np.testing.assert_allclose(first, second, atol=1e-6)
    other = METHODS["local"](Cells(twins, twins, seed=4), QUICK["local"])
    assert np.abs(other[: len(first)] - first).max() > 1e-3


def test_sites_alone_train_as_long_as_a_federation(three_sites):
    longer, same = (
        embed("local", three_sites, n_rounds=rounds, n_epochs=epochs) for rounds, epochs in ((4, 1), (1, 2))
    )
    np.testing.assert_array_equal(embed("local", three_sites), same)
    assert (longer != same).any()


@pytest.mark.parametrize("reference", ["landmarks", "dominant", "mean"])
def test_a_snapshot_is_what_a_shorter_federation_gives(three_sites, reference):
    settings = {"n_epochs": 1, "model": NETWORK, "reference": reference}
    scvi.settings.seed = 3
    snapshots = dict(round_by_round(Cells(three_sites, three_sites, seed=3), n_rounds=3, **settings))
    assert list(snapshots) == [1, 2, 3]
    for n_rounds, embedding in snapshots.items():
        whole = embed("fedscgen", three_sites, n_rounds=n_rounds, **settings)
        np.testing.assert_allclose(embedding, whole, atol=1e-5)


def test_another_model_has_a_snapshot_after_each_round(three_sites, linear):
    settings = {"architecture": linear, "model": {"n_latent": 3}, "lr": 0.1, "n_epochs": 1}
    scvi.settings.seed = 3
    snapshots = dict(round_by_round(Cells(three_sites, three_sites, seed=3), n_rounds=2, **settings))
    assert list(snapshots) == [1, 2]
    np.testing.assert_allclose(snapshots[2], embed_linear(three_sites, n_rounds=2, **settings), atol=1e-4)


def embed_linear(adata, **settings):
    scvi.settings.seed = 3
    return METHODS["fedscgen"](Cells(adata, adata, seed=3), settings)


def test_scvi_takes_counts_where_there_are_any(three_sites):
    logged = three_sites.copy()
    del logged.layers["counts"]
    assert (embed("scvi", three_sites) != embed("scvi", logged)).any()


def test_scvi_refuses_scaled_data(three_sites):
    scaled = three_sites.copy()
    del scaled.layers["counts"]
    scaled.X = scaled.X.toarray() - 1
    with pytest.raises(ValueError, match=r"negative values .* no layers\['counts'\]"):
        embed("scvi", scaled)
