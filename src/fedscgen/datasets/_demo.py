"""Real cells with site effects that are known because they were put there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

SITES = ("Hospital A", "Hospital B", "Hospital C")
_DEPTH = (1.0, 0.6, 0.4)  # share of its molecules that a site's protocol catches
_GENE_EFFECT_SD = (0.5, 0.9, 0.9)  # of each gene's log fold change, natural logarithm
_NORMALISED_TOTAL = 1e4

# Share of a type's cells that each site holds. A row that ends in zeros leaves sites without the type.
_COMPOSITION = {
    "Dendritic": (0.5, 0.3, 0.2),
    "CD14+ Monocyte": (0.45, 0.35, 0.2),
    "CD19+ B": (0.5, 0.3, 0.2),
    "CD4+/CD25 T Reg": (0.35, 0.4, 0.25),
    "CD8+ Cytotoxic T": (0.4, 0.3, 0.3),
    "CD8+/CD45RA+ Naive Cytotoxic": (0.6, 0.4, 0.0),
    "CD56+ NK": (0.6, 0.0, 0.4),
    "CD4+/CD45RO+ Memory": (0.4, 0.6, 0.0),
    "CD34+": (1.0, 0.0, 0.0),
    "CD4+/CD45RA+/CD25- Naive T": (0.6, 0.4, 0.0),
}


def demo_data(seed: int = 0) -> AnnData:
    """700 real blood cells, spread over three simulated hospitals.

    The cells are ``scanpy.datasets.pbmc68k_reduced()`` (Zheng et al. 2017), which ships with scanpy: nothing is
    downloaded. Their measured counts are recovered from the log-normalised values, changed by the site effects
    below, normalised to 10,000 molecules per cell and log-transformed again.

    Site effects, in the order in which they act on a cell's counts:

    - *Depth.* Hospital A keeps every molecule, B 60 % and C 40 % of them (binomial thinning of the counts), as a
      protocol that catches fewer molecules would: some lowly expressed genes drop to zero.
    - *Genes.* Every site multiplies the expression of gene g by ``exp(e_g)``, ``e_g ~ N(0, sd)`` with sd 0.5 at A
      and 0.9 at B and C, as in Splatter's batch effects (Zappia et al. 2017). Zeros stay zeros.

    Sites differ in composition as well: only A has ``CD34+``; C lacks three more types and B one; the eight
    ``CD4+/CD45RA+/CD25- Naive T`` are so few that B's three fall below the default ``min_cells`` of a reference.

    Parameters
    ----------
    seed
        Seed of both effects, and of which cell goes to which site. The number of cells by site and type doesn't depend
        on it.

    Returns
    -------
    AnnData of 700 cells x 765 genes. ``X`` (sparse, float32): ``log1p`` of counts per 10,000. ``obs``: ``"batch"``
    (the site) and ``"cell_type"``. ``uns["simulated_site_effects"]``: ``"seed"``, ``"depth"`` (share of molecules kept,
    by site), ``"gene_effect_sd"`` (by site) and ``"gene_log_fold_change"`` (the ``e_g``, DataFrame of genes x sites).
    """
    return _simulate(seed)[0]


def demo_counts(seed: int = 0) -> dict[str, AnnData]:
    """The same hospitals, with raw counts as they came from the machine, and types as each hospital calls them.

    A count is that of :func:`demo_data` before it is normalised, rounded at random to one of its two neighbours.
    Hospital B writes its types in lower case, with underscores and in the plural.

    Parameters
    ----------
    seed
        As :func:`demo_data` takes it.

    Returns
    -------
    AnnData by hospital, with whole numbers in ``X`` (sparse, float32) and ``obs["cell_type"]``.
    """
    adata, expected = _simulate(seed)
    whole = np.floor(expected.data + np.random.default_rng([seed, 1]).random(expected.nnz))
    counts = sparse.csr_matrix((whole.astype(np.float32), expected.indices, expected.indptr), expected.shape)
    counts.eliminate_zeros()
    adata.X = counts
    sites = {site: adata[adata.obs["batch"] == site].copy() for site in SITES}
    for site, cells in sites.items():
        types = cells.obs["cell_type"].astype(str)
        cells.obs = cells.obs[[]].assign(cell_type=types.map(_spell_otherwise) if site == SITES[1] else types)
        del cells.uns["simulated_site_effects"]
    return sites


def _spell_otherwise(name: str) -> str:
    return f"{name.lower().replace(' ', '_')}s"


def _simulate(seed: int) -> tuple[AnnData, sparse.csr_matrix]:
    """What :func:`demo_data` gives, and the expected counts behind it, shape ``(n_cells, n_genes)``."""
    import pandas as pd
    import scanpy as sc
    from anndata import AnnData

    source = sc.datasets.pbmc68k_reduced()
    rng = np.random.default_rng(seed)
    cell_type = source.obs["bulk_labels"].astype(str)
    site = _assign_sites(cell_type.to_numpy(), rng)  # (n_cells,)
    effects = rng.normal(scale=_GENE_EFFECT_SD, size=(source.raw.n_vars, len(SITES))).astype(np.float32)
    depth = np.asarray(_DEPTH)[site]
    counts, totals = _thin(*_counts(source.raw.X, source.obs["n_counts"].to_numpy()), depth, rng)
    expected = counts.copy()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    expected.data = counts.data * np.exp(effects.T[site][rows, counts.indices])
    adata = AnnData(
        X=_log_normalise(counts, totals, effects.T[site]),
        obs=pd.DataFrame(
            {
                "batch": pd.Categorical.from_codes(site, categories=list(SITES)),
                "cell_type": pd.Categorical(cell_type),
            },
            index=source.obs_names.astype(str),
        ),
        var=pd.DataFrame(index=source.raw.var_names.astype(str)),
    )
    adata.uns["simulated_site_effects"] = {
        "seed": seed,
        "depth": dict(zip(SITES, _DEPTH, strict=True)),
        "gene_effect_sd": dict(zip(SITES, _GENE_EFFECT_SD, strict=True)),
        "gene_log_fold_change": pd.DataFrame(effects, index=adata.var_names.to_numpy(), columns=list(SITES)),
    }
    return adata, expected


def _assign_sites(cell_type: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal each type's cells out to the sites by the composition table; shape ``(n_cells,)``."""
    site = np.empty(len(cell_type), dtype=np.int8)
    for name, shares in _COMPOSITION.items():
        cells = rng.permutation(np.flatnonzero(cell_type == name))
        bounds = np.rint(np.cumsum(shares) * len(cells)).astype(int)
        site[cells] = np.searchsorted(bounds, np.arange(len(cells)), side="right")
    return site


def _counts(log_normalised: sparse.csr_matrix, totals: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Invert ``log1p(1e4 * count / total)``; the totals include genes that the file doesn't hold."""
    totals = np.rint(totals).astype(np.int64)
    counts = sparse.csr_matrix(log_normalised, dtype=np.float64, copy=True)
    counts.data = np.expm1(counts.data) * np.repeat(totals / _NORMALISED_TOTAL, np.diff(counts.indptr))
    counts.data = np.rint(counts.data)
    return counts, totals


def _thin(
    counts: sparse.csr_matrix, totals: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Keep each molecule with its cell's probability ``depth``, shape ``(n_cells,)``."""
    thinned = counts.copy()
    thinned.data = rng.binomial(counts.data.astype(np.int64), np.repeat(depth, np.diff(counts.indptr))).astype(float)
    of_other_genes = totals - np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)
    return thinned, np.asarray(thinned.sum(axis=1)).ravel() + rng.binomial(of_other_genes, depth)


def _log_normalise(counts: sparse.csr_matrix, totals: np.ndarray, effects: np.ndarray) -> sparse.csr_matrix:
    """``log1p(1e4 * count / total * exp(effect))`` where a count is; ``effects`` has shape ``(n_cells, n_genes)``."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    expression = counts.data * (_NORMALISED_TOTAL / totals)[rows] * np.exp(effects[rows, counts.indices])
    result = sparse.csr_matrix((np.log1p(expression), counts.indices, counts.indptr), counts.shape, dtype=np.float32)
    result.eliminate_zeros()
    return result
