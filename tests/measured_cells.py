"""Fixtures of the rooms that measure cells or draw them."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from fedscgen.datasets import demo_data

_PBMC = Path(__file__).parents[1] / "../shared/data/pbmc_10x_3assays.h5ad"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small k-means runs wait for each other's threads longer than they compute, where the cores are shared."""
    import sklearn.cluster  # noqa: F401  (loads the thread pools that are limited)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def demo():
    return demo_data()


@pytest.fixture(scope="session")
def pbmc():
    """Real cells of three assays with a PCA."""
    if not _PBMC.exists():
        pytest.skip(f"needs the real cells of {_PBMC}")
    adata = anndata.read_h5ad(_PBMC)
    adata.obsm["X_pca"] = sc.pp.pca(adata.X, n_comps=20, random_state=0)
    return adata


@pytest.fixture(scope="session")
def equal_types(pbmc):
    """60 of the real cells of each of five types: JAX compiles scib-metrics once for all types of one size."""
    common = pbmc.obs["cell_type"].value_counts().index[:5]
    rng = np.random.default_rng(0)
    of_types = [rng.choice(np.flatnonzero(pbmc.obs["cell_type"] == name), 60, replace=False) for name in common]
    return pbmc[np.concatenate(of_types)].copy()


@pytest.fixture(scope="session")
def ideal_embedding(pbmc):
    """PCA of the real cells in which each assay's mean of each type sits on the type's mean; shape (1200, 20)."""
    frame = pd.DataFrame(pbmc.obsm["X_pca"].astype(np.float64), index=pbmc.obs_names)
    by_type = frame.groupby(pbmc.obs["cell_type"], observed=True).transform("mean")
    by_group = frame.groupby([pbmc.obs["cell_type"], pbmc.obs["batch"]], observed=True).transform("mean")
    return (frame - by_group + by_type).to_numpy()


@pytest.fixture(scope="session")
def ideal_demo(demo):
    """The demo with an embedding in which each site's mean of each type sits on the type's mean."""
    adata = demo.copy()
    latent = sc.pp.pca(adata.X, n_comps=10, random_state=0).astype(np.float32)
    frame = pd.DataFrame(latent, index=adata.obs_names)
    by_type = frame.groupby(adata.obs["cell_type"], observed=True).transform("mean")
    by_group = frame.groupby([adata.obs["cell_type"], adata.obs["batch"]], observed=True).transform("mean")
    adata.obsm["X_fedscgen"] = (frame - by_group + by_type).to_numpy()
    return adata


@pytest.fixture(scope="session")
def history(demo):
    rows = [
        {
            "site": site,
            "round": n_round,
            "epoch": epoch,
            "train_loss": 0.1 + 0.01 * position + np.exp(-2 * n_round - epoch),
            "validation_loss": 0.2 + 0.01 * position + np.exp(-2 * n_round - epoch),
            "seconds": 0.5,
        }
        for position, site in enumerate(demo.obs["batch"].cat.categories)
        for n_round in (1, 2, 3)
        for epoch in (1, 2)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def ledger(demo):
    rows = []
    for site in demo.obs["batch"].cat.categories:
        rows.append((pd.NA, site, "server", "keys", "(32,)", 32, "public"))
        for n_round in (1, 2, 3):
            rows.append((n_round, "server", site, "global", "(1000,)", 4_000_000, "none"))
            rows.append((n_round, site, "server", "fit", "(1000,)", 8_000_000, "masked"))
        rows.append((4, site, "server", "n_cells", "()", 8, "none"))
        rows.append((4, site, "Hospital A", "shares", "(3,)", 500, "encrypted"))
    columns = ["round", "sender", "receiver", "kind", "shape", "bytes", "protection"]
    return pd.DataFrame(rows, columns=columns)
