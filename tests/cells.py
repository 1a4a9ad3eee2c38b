"""Cells that the tests make up."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

REAL_CELLS = Path(__file__).parents[1] / "../shared/data/pbmc_10x_3assays.h5ad"
SMALL = {"n_hidden": 16, "n_latent": 4}


def leave_out_pandas(warned):
    """Recorded warnings but pandas' own about its next version, which anndata and mudata cause: no filter does it."""
    return [one for one in warned if not one.category.__module__.startswith("pandas")]


def make_adata(n_cells: int = 150, n_genes: int = 30, n_batches: int = 3, n_types: int = 4, seed: int = 0) -> AnnData:
    """Log-normalised-looking cells whose types and batches differ, in random order."""
    rng = np.random.default_rng(seed)
    batch, cell_type = rng.integers(n_batches, size=n_cells), rng.integers(n_types, size=n_cells)
    profiles, effects = rng.gamma(1.0, 1.0, (n_types, n_genes)), rng.normal(0, 0.3, (n_batches, n_genes))
    values = profiles[cell_type] + effects[batch] + rng.normal(0, 0.2, (n_cells, n_genes))
    values[rng.random(values.shape) < 0.3] = 0
    return AnnData(
        X=sparse.csr_matrix(values.clip(0).astype(np.float32)),
        obs=pd.DataFrame(
            {
                "batch": [f"site{b}" for b in batch],
                "cell_type": [f"type{t}" for t in cell_type],
                "age": rng.random(n_cells),
            },
            index=[f"cell{i}" for i in range(n_cells)],
        ).astype({"batch": "category", "cell_type": "category"}),
        var=pd.DataFrame({"length": rng.integers(1, 9, n_genes)}, index=[f"gene{i}" for i in range(n_genes)]),
        obsm={"X_given": rng.normal(size=(n_cells, 2))},
    )
