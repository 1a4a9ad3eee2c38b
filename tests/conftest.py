"""Small and real data for all tests."""

import os

import pytest
import scvi
import torch
from anndata import read_h5ad
from threadpoolctl import threadpool_limits

from cells import REAL_CELLS, SMALL, make_adata
from fedscgen.model import FedSCGEN

# small models lose more by waiting for threads than they gain
torch.set_num_threads(1)
threadpool_limits(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start


@pytest.fixture
def adata():
    """150 cells x 30 genes, 3 batches, 4 types, sparse."""
    return make_adata()


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test."""
    scvi.settings.seed = 0


@pytest.fixture
def trained(adata):
    """A small model, trained for an epoch."""
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    model.train_local(1)
    return model


@pytest.fixture(scope="session")
def pbmc():
    """1,200 real cells of three assays."""
    if not REAL_CELLS.exists():
        pytest.skip(f"the real cells are not here: {REAL_CELLS}")
    return read_h5ad(REAL_CELLS)


@pytest.fixture
def quiet_figures():
    """Draw into memory, and forget it."""
    import matplotlib.pyplot as plt
    import scanpy as sc

    backend, autoshow = plt.get_backend(), sc.settings.autoshow
    plt.switch_backend("Agg")
    sc.settings.autoshow = False
    yield
    plt.close("all")
    plt.switch_backend(backend)
    sc.settings.autoshow = autoshow
