"""Sites whose every difference is known, because it was drawn from a stated distribution."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from fedscgen.datasets._composition import cells_by_site, cells_by_site_and_type

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_NORMALISED_TOTAL = 1e4
_MEAN_SHAPE, _MEAN_SCALE = 0.6, 1 / 0.3  # of the genes' mean expression, as Splatter's defaults
_NEGLIGIBLE_DISPERSION = 1e-9  # gamma variates would differ from 1 by less than a Poisson count shows
_AT_LEAST = {"n_sites": 1, "n_types": 1, "n_cells": 1, "n_genes": 1, "min_cells_per_site": 1, "concentration": 1e-3}
_SHARES = ("missing_types", "de_fraction")
_DECAYS = ("type_decay", "site_decay")
_FINITE = (
    "depth",
    "de_strength",
    "within_type_strength",
    "batch_strength",
    "interaction_strength",
    "depth_variation",
    "library_variation",
    "dispersion",
)


def simulate_sites(
    *,
    n_sites: int = 5,
    n_types: int = 6,
    n_cells: int = 2000,
    n_genes: int = 1000,
    seed: int = 0,
    site_decay: float = 0.8,
    min_cells_per_site: int = 20,
    type_decay: float = 0.8,
    concentration: float = 10.0,
    missing_types: float = 0.1,
    de_fraction: float = 0.1,
    de_strength: float = 0.6,
    within_type_strength: float = 0.3,
    batch_strength: float = 0.25,
    interaction_strength: float = 0.1,
    depth: float = 3000.0,
    depth_variation: float = 0.3,
    library_variation: float = 0.3,
    dispersion: float = 0.1,
) -> AnnData:
    r"""Cells of several sites, drawn from a model in the manner of Splatter (Zappia et al. 2017).

    *Who is where.* Site ``s = 0, 1, ...`` has ``min_cells_per_site`` cells and a share of the others proportional to
    ``site_decay ** s``. Type ``t`` has a share proportional to ``type_decay ** t`` in the population. Every type has a
    home site that holds at least one cell of it; at any other site it is missing with probability ``missing_types``.
    The site's composition is Dirichlet with parameters ``concentration * share``, over the types that it has.

    *What is expressed.* With natural logarithms, in cell ``c`` of type ``t`` at site ``s``, gene ``g`` has the rate ::

        log r_cg = log m_g + d_tg + u_c w_tg + b_sg + i_stg

        m_g   ~ Gamma(shape 0.6, rate 0.3)                     the gene's mean, as in Splatter
        d_tg  ~ N(0, de_strength^2)           in de_fraction   differential expression of the type, else 0
        w_tg  ~ N(0, within_type_strength^2)  in de_fraction   a programme that varies inside the type, else 0
        u_c   ~ N(0, 1)                                        how active it is in the cell
        b_sg  ~ N(0, batch_strength^2)                         batch effect, the same for all types
        i_stg ~ N(0, interaction_strength^2)                   the part of it that differs by type

    *What is counted.* A cell's molecules are shared among the genes by their rates, with extra variation::

        log L_c = log(depth) + e_s + l_c,  e_s ~ N(0, depth_variation^2),  l_c ~ N(0, library_variation^2)
        count_cg ~ Poisson(L_c r_cg / sum_h r_ch * v_cg),  v_cg ~ Gamma(mean 1, variance dispersion)

    so that counts are negative binomial, of variance ``mean + dispersion * mean^2``. Different from Splatter: factors
    scatter around 1, also for batches; there is a programme in each type and an interaction; dispersion doesn't depend
    on the mean; and no zeros are added.

    Parameters
    ----------
    n_sites, n_types, n_cells, n_genes
        How many there are; cells over all sites. Many small sites: ``n_sites=20, n_cells=1200, site_decay=1``.
    seed
        Seed of all random numbers. With the same seed, a change of one strength leaves the composition and all other
        effects as they were, and stretches its own effects.
    site_decay
        Size of a site relative to the one before, above 0 and at most 1 (all sites alike).
    min_cells_per_site
        Fewest cells of a site.
    type_decay
        Frequency of a type relative to the one before, above 0 and at most 1; 0.3 makes the last types rare.
    concentration
        How alike the sites' compositions are, at least 0.001: about 1 gives each site few types, ``math.inf`` the same
        shares to all.
    missing_types
        Probability that a site lacks a type, from 0 to 1.
    de_fraction
        Share of the genes that make a type differ, from 0 to 1.
    de_strength
        Standard deviation of their log fold changes: how far types are apart.
    within_type_strength
        Standard deviation of a programme's log fold changes for one unit of activity: how wide a type is.
    batch_strength
        Standard deviation of a site's log fold changes.
    interaction_strength
        Standard deviation of the log fold changes by which the batch effect differs between types. It sets the types of
        one site apart as well, in all genes, by what no other site shares.
    depth
        Median of the molecules counted in a cell.
    depth_variation
        Standard deviation of the sites' log depths.
    library_variation
        Standard deviation of the log depth of cells of one site.
    dispersion
        Dispersion of the negative binomial counts; 0 makes them Poisson.

    Returns
    -------
    AnnData of ``n_cells`` x ``n_genes``, by site. ``X`` (sparse, float32): ``log1p`` of counts per 10,000;
    ``layers["counts"]`` (sparse, int32). ``obs``: ``"batch"``, ``"cell_type"``, and ``"program"``, the ``u_c``.
    ``uns["simulated_sites"]`` is the truth: ``"parameters"`` (dict), ``"gene_mean"`` (the ``m_g``), ``"site_depth"``
    (``depth * exp(e_s)`` by site), and log fold changes as DataFrames of genes x types, ``"type_log_fold_change"``
    (``d``) and ``"program_log_fold_change"`` (``w``), of genes x sites, ``"batch_log_fold_change"`` (``b``), and as an
    array of sites x types x genes, ``"interaction_log_fold_change"`` (``i``).

    Raises
    ------
    ValueError
        A value is out of its range, there are too few cells for ``min_cells_per_site``, or a site is too small to be
        the home of its share of the types.
    """
    setting = _Setting(**locals())
    composition_rng, truth_rng, rng = np.random.default_rng(seed).spawn(3)  # so that one doesn't shift the others
    site_cells = cells_by_site(n_cells, n_sites, decay=site_decay, at_least=min_cells_per_site)
    composition = cells_by_site_and_type(
        site_cells, n_types, composition_rng, decay=type_decay, concentration=concentration, missing=missing_types
    )  # (n_sites, n_types)
    truth = _draw_truth(setting, truth_rng)
    types = [rng.permutation(np.repeat(np.arange(n_types), of_site)) for of_site in composition]
    activity = [rng.normal(size=len(of_site)) for of_site in types]
    counts = [_draw_counts(setting, truth, site, types[site], activity[site], rng) for site in range(n_sites)]
    return _make_adata(
        setting,
        truth,
        counts=sparse.vstack(counts, format="csr"),
        sites=np.repeat(np.arange(n_sites), site_cells),
        types=np.concatenate(types),
        activity=np.concatenate(activity),
    )


@dataclass(frozen=True)
class _Setting:
    """What was asked for, checked."""

    n_sites: int
    n_types: int
    n_cells: int
    n_genes: int
    seed: int
    site_decay: float
    min_cells_per_site: int
    type_decay: float
    concentration: float
    missing_types: float
    de_fraction: float
    de_strength: float
    within_type_strength: float
    batch_strength: float
    interaction_strength: float
    depth: float
    depth_variation: float
    library_variation: float
    dispersion: float

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            self._require(name, getattr(self, name) >= least, f"at least {least}")
        for name in _SHARES:
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in _DECAYS:
            self._require(name, 0 < getattr(self, name) <= 1, "above 0 and at most 1")
        self._require("depth", self.depth > 0, "above 0")
        for name in _FINITE:
            self._require(name, 0 <= getattr(self, name) < math.inf, "finite and not negative")
        if self.n_cells < self.n_sites * self.min_cells_per_site:
            raise ValueError(
                f"n_cells={self.n_cells} are too few for {self.n_sites} sites of at least "
                f"min_cells_per_site={self.min_cells_per_site}: more cells, fewer sites, or smaller ones"
            )
        homes = math.ceil(self.n_types / self.n_sites)
        if self.min_cells_per_site < homes:
            raise ValueError(
                f"min_cells_per_site={self.min_cells_per_site} are too few for {self.n_types} types at {self.n_sites} "
                f"sites, some of which are home to {homes} types: at least {homes}"
            )

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)}: must be {what}")


@dataclass(frozen=True)
class _Truth:
    """The parts of the log rates, and the depths."""

    gene_mean: np.ndarray  # (n_genes,)
    site_depth: np.ndarray  # (n_sites,)
    of_type: np.ndarray  # (n_types, n_genes)
    of_program: np.ndarray  # (n_types, n_genes)
    of_site: np.ndarray  # (n_sites, n_genes)
    of_both: np.ndarray  # (n_sites, n_types, n_genes)


def _draw_truth(setting: _Setting, rng: np.random.Generator) -> _Truth:
    sites, types, genes = setting.n_sites, setting.n_types, setting.n_genes

    def draw_in_some_genes(strength: float) -> np.ndarray:
        return (rng.random((types, genes)) < setting.de_fraction) * rng.normal(scale=strength, size=(types, genes))

    return _Truth(
        gene_mean=rng.gamma(_MEAN_SHAPE, _MEAN_SCALE, size=genes),
        site_depth=setting.depth * np.exp(rng.normal(scale=setting.depth_variation, size=sites)),
        of_type=draw_in_some_genes(setting.de_strength),
        of_program=draw_in_some_genes(setting.within_type_strength),
        of_site=rng.normal(scale=setting.batch_strength, size=(sites, genes)),
        of_both=rng.normal(scale=setting.interaction_strength, size=(sites, types, genes)),
    )


def _draw_counts(
    setting: _Setting, truth: _Truth, site: int, types: np.ndarray, activity: np.ndarray, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Counts of one site, shape ``(len(types), n_genes)``; one site at a time is dense."""
    by_type = np.log(truth.gene_mean) + truth.of_type + truth.of_site[site] + truth.of_both[site]
    rates = by_type[types] + activity[:, None] * truth.of_program[types]  # logarithms, (n_cells, n_genes)
    rates = np.exp(rates - rates.max(axis=1, keepdims=True))
    depth = truth.site_depth[site] * np.exp(rng.normal(scale=setting.library_variation, size=len(types)))
    rates *= (depth / rates.sum(axis=1))[:, None]
    if setting.dispersion > _NEGLIGIBLE_DISPERSION:
        rates *= rng.gamma(1 / setting.dispersion, setting.dispersion, size=rates.shape)
    return sparse.csr_matrix(rng.poisson(rates).astype(np.int32))


def _make_adata(
    setting: _Setting,
    truth: _Truth,
    *,
    counts: sparse.csr_matrix,
    sites: np.ndarray,
    types: np.ndarray,
    activity: np.ndarray,
) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    site_names, type_names, genes, cells = (
        _names(word, n)
        for word, n in (
            ("site", setting.n_sites),
            ("type", setting.n_types),
            ("gene", setting.n_genes),
            ("cell", setting.n_cells),
        )
    )
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical.from_codes(sites, categories=site_names),
            "cell_type": pd.Categorical.from_codes(types, categories=type_names),
            "program": activity,
        },
        index=cells,
    )
    adata = AnnData(X=_log_normalise(counts), obs=obs, var=pd.DataFrame(index=genes), layers={"counts": counts})
    adata.uns["simulated_sites"] = _describe_truth(setting, truth, site_names, type_names, adata.var_names)
    return adata


def _describe_truth(
    setting: _Setting, truth: _Truth, sites: list[str], types: list[str], genes: pd.Index
) -> dict[str, Any]:
    import pandas as pd

    return {
        "parameters": asdict(setting),
        "gene_mean": truth.gene_mean,
        "site_depth": dict(zip(sites, truth.site_depth.tolist(), strict=True)),
        "type_log_fold_change": pd.DataFrame(truth.of_type.T, index=genes, columns=types),
        "program_log_fold_change": pd.DataFrame(truth.of_program.T, index=genes, columns=types),
        "batch_log_fold_change": pd.DataFrame(truth.of_site.T, index=genes, columns=sites),
        "interaction_log_fold_change": truth.of_both,
    }


def _names(word: str, n: int) -> list[str]:
    """Names that sort as they are numbered: ``"site_01"``, ..., ``"site_20"``."""
    return [f"{word}_{number:0{len(str(n))}d}" for number in range(1, n + 1)]


def _log_normalise(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """``log1p`` of counts per 10,000; a cell without counts stays at zero."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    result = counts.astype(np.float32)
    result.data *= np.repeat(_NORMALISED_TOTAL / np.maximum(totals, 1), np.diff(counts.indptr)).astype(np.float32)
    np.log1p(result.data, out=result.data)
    return result
