"""How sure the names of cells without a label will be: the federation's classifier, tried on labels that are hidden."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from fedscgen._batches import name_batches
from fedscgen.aggregation import weighted_sum
from fedscgen.check._site import label_alike
from fedscgen.correction import (
    LandmarkSums,
    find_few,
    find_landmarks,
    label_positions,
    move_to_landmarks,
    name_cells,
    sum_answers,
)
from fedscgen.principal_components import find_principal_components, second_moments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedscgen._types import NamedArrays
    from fedscgen.federation import FederationSettings, SiteOptions

_MOST_CELLS, _MOST_OF_A_SITE = 12_000, 3_000
_MOST_TRIALS = 5
_HIDDEN_SHARE = 0.2
_FEWEST_CALLED = 5
_N_DRAWS, _DRAWN_SHARE = 5, 0.9  # of the cells of which a training finds components
_LEAST_RIGHT, _ONE_IN_TWENTY = 0.8, 1.645
_HIDDEN = ["site", "cell_type", "name", "cells"]
_N_LATENT = 20  # of a model that doesn't say


@dataclass(frozen=True)
class Rehearsal:
    """How cells were named whose labels were hidden, and how those are that have none.

    Parameters
    ----------
    hidden
        Of the cells whose labels were hidden: ``site``, ``cell_type``, the label, ``name``, what they were called, and
        ``cells``, how many.
    unlabeled
        One row per site with cells without a label: ``site``, ``cells``, how many were tried, ``named``, how many of
        them got a name in the mean of several trials, ``fewest`` and ``most`` of all trials, and ``sure``, the mean
        probability of the names. Trials differ by what chance decides in a run: of which cells components are found,
        and where landmarks begin.
    known
        Names that there are.
    whole_sites
        Whether all labels of a site were hidden, one site at a time, as some site has none; else a fifth of them where
        cells without a label are.
    """

    hidden: pd.DataFrame
    unlabeled: pd.DataFrame
    known: tuple[str, ...]
    whole_sites: bool

    def count(self, of: str) -> pd.DataFrame:
        """By ``"site"`` or ``"cell_type"``: ``cells``, whose labels were hidden, ``named`` and ``right``, how many."""
        table = self.hidden
        named, right = table["name"].isin(self.known), table["name"] == table["cell_type"]
        counted = table.assign(named=table["cells"] * named, right=table["cells"] * right)
        return counted.groupby(of)[["cells", "named", "right"]].sum()

    @cached_property
    def by_type(self) -> pd.DataFrame:
        """The same by type, also of types that no name is known of, with ``called``, how many cells got this name."""
        called = self.hidden[self.hidden["name"].isin(self.known)].groupby("name")["cells"].sum()
        counted = self.count("cell_type").join(called.rename("called"), how="outer")
        return counted.fillna(0).astype(int).rename_axis("cell_type").reset_index()

    def find_doubtful(self) -> pd.DataFrame:
        """Rows of :attr:`by_type` for names that were wrong too often for chance."""
        table = self.by_type
        spread = np.sqrt(table["called"] * _LEAST_RIGHT * (1 - _LEAST_RIGHT))
        wrong = table["right"] < _LEAST_RIGHT * table["called"] - _ONE_IN_TWENTY * spread
        return table[wrong & (table["called"] >= _FEWEST_CALLED)]

    def find_nameless(self) -> pd.DataFrame:
        """Rows of :attr:`by_type` for names that the federation knows and gave to less than half of their cells."""
        table = self.by_type
        known = table["cell_type"].isin(self.known) & (table["cells"] >= _FEWEST_CALLED)
        return table[known & (2 * table["named"] < table["cells"])]


@dataclass(frozen=True)
class Sample:
    """Some of a site's cells.

    Parameters
    ----------
    expression
        Of the genes that the sites have in common, shape ``(n_cells, n_genes)``.
    batches
        Each cell's batch, shape ``(n_cells,)``.
    labels
        Each cell's type under its common name; missing where there is none. Shape ``(n_cells,)``.
    n_cells
        Of the whole site.
    """

    expression: sparse.csr_matrix
    batches: np.ndarray
    labels: pd.Series
    n_cells: int

    @classmethod
    def of(
        cls, adata: AnnData, options: SiteOptions, label_map: Mapping[str, str], genes: Sequence[str], n_sites: int
    ) -> Sample:
        """Take as many of a site's cells at random as keep the trial short, with ``n_sites`` of them."""
        adata, batch_key = name_batches(adata, options.batch_key)
        labels = label_alike(adata, options, label_map)
        n_cells = min(adata.n_obs, _MOST_OF_A_SITE, max(_MOST_CELLS // n_sites, 1))
        rows = np.sort(np.random.default_rng(0).choice(adata.n_obs, n_cells, replace=False))
        columns = adata.var_names.get_indexer(pd.Index(genes))
        expression = sparse.csr_matrix(options.keys.expression_of(adata)[rows][:, columns], dtype=np.float32)
        batches = np.asarray(options.keys.categories_of(adata, batch_key).codes)[rows]
        return cls(expression, batches, labels.iloc[rows].reset_index(drop=True), adata.n_obs)


def rehearse(
    samples: Mapping[str, Sample],
    known: Sequence[str],
    settings: FederationSettings,
    options: SiteOptions,
    min_confidence: float = 0.5,
) -> Rehearsal:
    """Name cells as a federation does that trains nothing, once with all labels, and with some of them hidden.

    Parameters
    ----------
    samples
        Some cells of each site, of which some have no label.
    known
        Cell types that the federation knows.
    settings, options
        What the sites do alike, and from how many cells on they tell of a type.
    min_confidence
        Probability from which a cell gets a name.
    """
    matrices = _choose_expression(samples, settings)
    latents = [_find_latents(samples, matrices, settings, seed) for seed in range(_N_DRAWS)]
    trials = [
        _Trial(samples, found, tuple(known), settings, options, min_confidence, seed)
        for seed, found in enumerate(latents)
    ]
    labels = {site: sample.labels for site, sample in samples.items()}
    whole_sites = any(own.isna().all() for own in labels.values())
    masks = _hide_sites(labels) if whole_sites else [_hide_some(labels)]
    hidden = pd.concat([trials[0].compare(labels, mask) for mask in masks], ignore_index=True)
    unlabeled = _summarize([trial.look_at_unlabeled(labels) for trial in trials])
    return Rehearsal(hidden, unlabeled, tuple(known), whole_sites)


@dataclass(frozen=True)
class _Trial:
    samples: Mapping[str, Sample]
    latents: Mapping[str, np.ndarray]
    known: tuple[str, ...]
    settings: FederationSettings
    options: SiteOptions
    min_confidence: float
    seed: int

    def guess(self, labels: Mapping[str, pd.Series], sites: Sequence[str]) -> dict[str, np.ndarray]:
        """Probabilities of each type at these sites, and last of none that is known, by what these labels tell."""
        codes = {site: label_positions(pd.Categorical(own), self.known) for site, own in labels.items()}
        landmarks = find_landmarks(
            sum_answers([self._begin_sums(site, own, codes[site]) for site, own in labels.items()]),
            self.known,
            label_noise=self.settings.label_noise,
            min_holders=self.options.min_holders,
            seed=self.seed,
        )
        return {
            site: move_to_landmarks(self.latents[site], self.samples[site].batches, codes[site], landmarks).guess
            for site in sites
        }

    def _begin_sums(self, site: str, labels: pd.Series, codes: np.ndarray) -> LandmarkSums:
        """A site's answers, as it gives them in a run."""
        batches, few = self.samples[site].batches, self.options.min_cells
        told = ~find_few(batches, np.asarray(pd.Categorical(labels).codes), few)
        return LandmarkSums(self.latents[site][told], batches[told], codes[told], len(self.known), few)

    def compare(self, labels: Mapping[str, pd.Series], mask: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Rows of :attr:`Rehearsal.hidden` for the cells that are marked, by site."""
        left = {site: own.mask(mask[site]) if site in mask else own for site, own in labels.items()}
        tables = []
        for site, guess in self.guess(left, list(mask)).items():
            names = name_cells(guess[mask[site]], self.known, self.min_confidence)
            pairs = pd.DataFrame({"site": site, "cell_type": labels[site][mask[site]].astype(str), "name": names})
            tables.append(pairs.value_counts(sort=False).rename("cells").reset_index())
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_HIDDEN)

    def look_at_unlabeled(self, labels: Mapping[str, pd.Series]) -> pd.DataFrame:
        """:attr:`Rehearsal.unlabeled` of this trial."""
        asked = [site for site, own in labels.items() if own.isna().any()]
        rows = []
        for site, guess in self.guess(labels, asked).items():
            best = guess[labels[site].isna(), :-1].max(axis=1)
            named = best >= self.min_confidence
            rows.append((site, len(best), int(named.sum()), float(best[named].mean()) if named.any() else np.nan))
        return pd.DataFrame(rows, columns=["site", "cells", "named", "sure"])


def _hide_sites(labels: Mapping[str, pd.Series]) -> list[dict[str, np.ndarray]]:
    """All labels of one site at a time, of those with most cells first."""
    labelled = {site: own.notna().to_numpy() for site, own in labels.items() if own.notna().any()}
    return [{site: labelled[site]} for site in sorted(labelled, key=lambda site: -labelled[site].sum())[:_MOST_TRIALS]]


def _hide_some(labels: Mapping[str, pd.Series]) -> dict[str, np.ndarray]:
    """A part of the labels of each site that has cells without."""
    rng = np.random.default_rng(0)
    drawn = {
        site: own.notna().to_numpy() & (rng.random(len(own)) < _HIDDEN_SHARE)
        for site, own in labels.items()
        if own.isna().any()
    }
    return {site: chosen for site, chosen in drawn.items() if chosen.any()}


def _summarize(trials: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """:attr:`Rehearsal.unlabeled` of all trials."""
    by_site = pd.concat(trials).groupby("site", sort=False)
    parts = {"named": ("named", "mean"), "fewest": ("named", "min"), "most": ("named", "max"), "sure": ("sure", "mean")}
    table = by_site.agg(cells=("cells", "first"), **parts).reset_index()
    return table.astype({"named": int})


def _choose_expression(samples: Mapping[str, Sample], settings: FederationSettings) -> dict[str, sparse.csr_matrix]:
    """Each site's expression of the genes that are trained on."""
    matrices = {site: sample.expression for site, sample in samples.items()}
    n_genes = next(iter(matrices.values())).shape[1]
    if settings.count_genes(n_genes) == n_genes:
        return matrices
    chosen = _choose_genes(matrices, settings.count_genes(n_genes))
    return {site: matrix[:, chosen] for site, matrix in matrices.items()}


def _find_latents(
    samples: Mapping[str, Sample], matrices: Mapping[str, sparse.csr_matrix], settings: FederationSettings, seed: int
) -> dict[str, np.ndarray]:
    """Each site's cells along the components of most cells of all, each of shape ``(n_cells, n_latent)``."""
    n_chosen = next(iter(matrices.values())).shape[1]
    sizes = {site: float(sample.n_cells) for site, sample in samples.items()}
    rng = np.random.default_rng(seed)
    drawn = {}
    for site, matrix in matrices.items():
        n_drawn = int(np.ceil(_DRAWN_SHARE * matrix.shape[0]))
        drawn[site] = matrix[np.sort(rng.permutation(matrix.shape[0])[:n_drawn])]

    def mean_over_sites(basis: np.ndarray) -> NamedArrays:
        moments = [(second_moments([matrix], basis), sizes[site]) for site, matrix in drawn.items()]
        return {name: array / sum(sizes.values()) for name, array in weighted_sum(moments).items()}

    n_latent = min(int(settings.spell_out().model.get("n_latent", _N_LATENT)), n_chosen)
    center, axes = find_principal_components(mean_over_sites, n_chosen, n_latent)
    return {site: matrix @ axes.T - axes @ center for site, matrix in matrices.items()}


def _choose_genes(matrices: Mapping[str, sparse.csr_matrix], n_top: int) -> np.ndarray:
    """The genes that vary most, as the sites would choose them; shape ``(n_genes,)``."""
    import scanpy as sc

    sites = np.repeat(list(matrices), [matrix.shape[0] for matrix in matrices.values()])
    cells = AnnData(sparse.vstack(list(matrices.values()), format="csr"))
    cells.obs["site"] = pd.Categorical(sites)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of genes without a dispersion
        found = sc.pp.highly_variable_genes(cells, n_top_genes=n_top, flavor="seurat", batch_key="site", inplace=False)
    chosen: np.ndarray = found["highly_variable"].to_numpy(dtype=bool)
    return chosen
