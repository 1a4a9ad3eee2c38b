"""What each method does with cells."""

import numpy as np
import pytest
import scvi

from fedscgen.benchmark.datasets import simulate_sites
from fedscgen.benchmark.experiments._methods import METHODS, Cells, round_by_round
from fedscgen.federation import simulate
from fedscgen.model import FedSCGEN

pytestmark = pytest.mark.filterwarnings("ignore")  # scvi-tools, Lightning and jax warn as they like
NETWORK = {"n_hidden": 16, "n_latent": 4}
QUICK = {
    "scvi": {"max_epochs": 2},
    "scanvi": {"max_epochs": 2, "scanvi_epochs": 2},
    "scgen": {"max_epochs": 2, "model": NETWORK},
    "fedscgen": {"n_rounds": 2, "n_epochs": 1, "model": NETWORK},
    "fedscgen-masked": {"n_rounds": 1, "n_epochs": 1, "model": NETWORK},
}


@pytest.fixture(scope="module")
def drawn():
    return simulate_sites(n_sites=3, n_types=3, n_cells=180, n_genes=60)


def embed(name, adata, train=None, **settings):
    scvi.settings.seed = 3
    return METHODS[name](Cells(adata, adata if train is None else train, seed=3), {**QUICK.get(name, {}), **settings})


@pytest.mark.parametrize("name", ["pca", "harmony", *QUICK])
def test_all_cells_are_embedded_the_same_way_twice_and_left_as_they_were(name, drawn):
    if name == "harmony":
        pytest.importorskip("harmonypy")
    before = drawn.copy()
    first, second = embed(name, drawn), embed(name, drawn)
    assert first.shape[0] == drawn.n_obs
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert list(drawn.obs) == list(before.obs)
    assert set(drawn.uns) == set(before.uns)
    assert (drawn.X != before.X).nnz == 0


# fedscgen-crypten is fedscgen with compute processes, which take long to start
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"harmony", "scvi", "scanvi", "fedscgen-crypten"}))
def test_a_batch_left_out_of_training_is_embedded_too(name, drawn):
    assert METHODS[name].takes_newcomers
    train = drawn[drawn.obs["batch"] != "site2"].copy()
    assert embed(name, drawn, train).shape[0] == drawn.n_obs


def test_scgen_is_the_model_of_the_package(drawn):
    adata = drawn.copy()
    scvi.settings.seed = 3
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **NETWORK)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    np.testing.assert_array_equal(embed("scgen", drawn), model.correct().obsm["X_fedscgen"])


@pytest.mark.parametrize("reencode", [False, True])
def test_fedscgen_is_the_simulated_federation(drawn, reencode):
    scvi.settings.seed = 3
    options = {"n_rounds": 2, "n_epochs": 1, "model_kwargs": NETWORK, "reencode": reencode}
    result = simulate(drawn, accelerator="cpu", show_progress=False, **options)
    key = "X_fedscgen_reencoded" if reencode else "X_fedscgen"
    np.testing.assert_array_equal(embed("fedscgen", drawn, reencode=reencode), result.corrected.obsm[key])


@pytest.mark.parametrize("reference", ["dominant", "mean"])
def test_a_snapshot_is_what_a_shorter_federation_gives(drawn, reference):
    settings = {"n_epochs": 1, "model": NETWORK, "reference": reference}
    scvi.settings.seed = 3
    snapshots = dict(round_by_round(Cells(drawn, drawn, seed=3), n_rounds=3, **settings))
    assert list(snapshots) == [1, 2, 3]
    for n_rounds, embedding in snapshots.items():
        whole = embed("fedscgen", drawn, n_rounds=n_rounds, **settings)
        np.testing.assert_allclose(embedding, whole, atol=1e-5)


def test_scvi_takes_counts_where_there_are_any(drawn):
    logged = drawn.copy()
    del logged.layers["counts"]
    assert (embed("scvi", drawn) != embed("scvi", logged)).any()


def test_scvi_refuses_scaled_data(drawn):
    scaled = drawn.copy()
    del scaled.layers["counts"]
    scaled.X = scaled.X.toarray() - 1
    with pytest.raises(ValueError, match=r"negative values .* no layers\['counts'\]"):
        embed("scvi", scaled)
