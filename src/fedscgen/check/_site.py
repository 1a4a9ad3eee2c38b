"""What is known of one site before anybody trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fedscgen._batches import name_batches
from fedscgen._categories import trim, with_names_as_strings, without_spaces
from fedscgen._data import FEWEST_CELLS, summarize_expression
from fedscgen._normalize import QUALITY_KEYS, sum_cells
from fedscgen.correction import expect_cells
from fedscgen.prepare import PREPARED_KEY, LabelProposal, to_common

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from anndata import AnnData

    from fedscgen._data import ExpressionSummary
    from fedscgen.federation import SiteOptions


@dataclass(frozen=True)
class Site:
    """What is known of a site's cells; nothing of it has to leave the site.

    Parameters
    ----------
    name
        Of the site.
    n_cells
        Of them.
    genes
        Their names.
    counts
        Cells by batch (rows) and cell type (columns), under the federation's names.
    batch_sizes
        Cells of each batch, those without a label among them.
    n_unlabeled
        Cells without a label.
    own_labels
        Cell types under the site's own names.
    values
        What the expression looks like.
    sums
        Smallest, median and largest sum of ``expm1`` over a cell's genes.
    names_unlabeled
        Whether the site says what cells without a label are called.
    exact
        Whether all that is counted here is known. Otherwise it is what the site has told: each type has at least as
        many cells as stand here, sizes are powers of two, and the sums leave out the least and most 5 % of cells.
    meanings
        Hash of what each type's name means by the hash of the name, if types are hashed.
    n_rare
        How many types have too few cells to be told.
    objections
        What the site would refuse of a training by these settings.
    lost
        What the preparation has left out, if it is most of the cells. Nothing is told of it to others.
    columns
        Of the site's ``obs``. Nothing is told of them to others.
    transposed
        Name of a cell that a gene has, if cells and genes seem to have changed places. Nothing is told of it to others.
    repeated_cell
        Name that two cells have, if there is one. Nothing is told of it to others.
    """

    name: str
    n_cells: int
    genes: pd.Index
    counts: pd.DataFrame
    batch_sizes: tuple[int, ...]
    n_unlabeled: int
    own_labels: tuple[str, ...]
    values: ExpressionSummary
    sums: tuple[float, float, float]
    names_unlabeled: bool = False
    exact: bool = True
    meanings: Mapping[str, str] = field(default_factory=dict)
    n_rare: int = 0
    objections: tuple[str, ...] = ()
    lost: str = ""
    columns: tuple[str, ...] = ()
    repeated_cell: str = ""
    transposed: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        adata: AnnData,
        options: SiteOptions,
        label_map: Mapping[str, str],
        shares: tuple[float, float, float] = (0.0, 0.5, 1.0),
    ) -> Site:
        """Look at a site's cells; the sums are those that these shares of cells stay below."""
        columns = tuple(str(name) for name in adata.obs if name not in QUALITY_KEYS)
        adata, batch_key = name_batches(adata, options.batch_key)
        labels, own = label_alike(adata, options, label_map), label_alike(adata, options, {}).dropna().unique()
        batches = options.keys.categories_of(adata, batch_key)
        counts = pd.crosstab(np.asarray(batches).astype(str), labels.to_numpy(), dropna=True)
        counts = counts.reindex(batches.categories, fill_value=0)
        matrix = options.keys.expression_of(adata)
        values = summarize_expression(matrix)
        no_sums = values.looks_raw or not values.finite
        sums = (np.nan,) * 3 if no_sums else sum_cells(matrix, shares)
        sizes = tuple(np.bincount(batches.codes).tolist())
        return cls(
            name,
            adata.n_obs,
            adata.var_names,
            counts,
            sizes,
            int(labels.isna().sum()),
            tuple(sorted(own)),
            values,
            sums,
            names_unlabeled=options.unlabeled_category is not None,
            objections=_object_to_size(adata.n_obs),
            lost=_describe_lost(adata.uns.get(PREPARED_KEY)),
            columns=columns,
            repeated_cell=next(map(str, adata.obs_names[adata.obs_names.duplicated()]), ""),
        )

    def find_reported(self, min_cells: int) -> list[str]:
        """Cell types of which the site has enough cells in a batch, so that it tells their names."""
        if not self.exact:
            return [str(name) for name in self.counts.columns]
        expected = expect_cells(self.counts.to_numpy(), np.asarray(self.batch_sizes))
        return [str(name) for name in self.counts.columns[(expected >= min_cells).any(axis=0)]]

    def count(self, n_cells: int) -> str:
        """A number of this site's cells, as far as it is known."""
        return f"{n_cells:,}" if self.exact else f"{n_cells:,} or more"


def label_alike(adata: AnnData, options: SiteOptions, label_map: Mapping[str, str]) -> pd.Series:
    """Each cell's type under the federation's name, as a run reads it; missing where there is none."""
    key = options.labels_key
    column = pd.Series(None, index=adata.obs_names, dtype=object)
    if key is not None and key in adata.obs:
        column = adata.obs[key].astype(object)
    if options.unlabeled_category is not None:
        none = trim(options.unlabeled_category)
        column = column.mask([isinstance(name, str) and trim(name) == none for name in column], None)
    named = pd.Series(to_common(column, label_map), name=key, dtype=object) if label_map else column
    return pd.Series(without_spaces(with_names_as_strings(named)), index=adata.obs_names, dtype=object)


def propose_by_meaning(meanings: Sequence[Mapping[str, str]]) -> LabelProposal:
    """Types of one meaning and several names, where names and meanings are hashes.

    Parameters
    ----------
    meanings
        Of each site, the hash of the meaning by that of the name.
    """
    common: dict[str, str] = {}
    sure = {}
    for own in meanings:
        for name, meaning in own.items():
            if common.setdefault(meaning, name) != name:
                sure[name] = common[meaning]
    return LabelProposal(sure)


def _object_to_size(n_cells: int) -> tuple[str, ...]:
    if n_cells >= FEWEST_CELLS:
        return ()
    return (f"fewer than {FEWEST_CELLS} cells are too few to train on: the trained model can correct them",)


def _describe_lost(preparation: Mapping[str, Any] | None) -> str:
    """Say what a preparation has left out, if it has left out more than it kept."""
    before, kept = (0, 0) if preparation is None else preparation["n_cells"]
    if preparation is None or 2 * kept >= before:
        return ""
    reasons = ", ".join(f"{n} with {reason}" for reason, n in preparation["left_out"].items())
    return f"{kept} of {before} cells are kept by the preparation ({reasons}): look at its thresholds"
