"""The sections of a run's report about its cells: types at the sites, predicted names, corrected expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen._words import join_names, quantity
from fedscgen.metrics import UndefinedMetricError, count_invented_genes, expression_conservation
from fedscgen.pl import composition as draw_composition
from fedscgen.pl import confidence as draw_confidence
from fedscgen.report._figures import show_figure
from fedscgen.report.page import text

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from fedscgen.pl import Group

_MOST_GENES, _MOST_LABELS = 2_000, 12
_SEED = 0
_OTHER = "#bbbbbb"  # of a type that is drawn nowhere else


def composition(obs: pd.DataFrame, batch_key: str, labels_key: str | None, types: Group | None) -> str:
    """Shares of the cell types at each site, and which types one site alone has; ``types`` have the colours."""
    if labels_key is None or types is None or obs[labels_key].isna().all():
        return "<p>No cell has a label: of which types the sites' cells are isn't known.</p>"
    n_sites = obs.groupby(labels_key, observed=True)[batch_key].nunique()
    alone = [str(name) for name in n_sites.index[n_sites == 1]]
    told = f"One site alone has {join_names(alone)}." if alone else "Every type is at more than one site."
    missing = obs[labels_key].isna()
    unlabelled = f" {quantity(int(missing.sum()), 'cell')} of {len(obs):,} have no label." if missing.any() else ""
    height = max(1.2 + 0.45 * obs[batch_key].nunique(), 0.6 + 0.24 * (len(n_sites) + missing.any()))
    alt = f"Shares of {quantity(len(n_sites), 'cell type')} at each of {quantity(obs[batch_key].nunique(), 'site')}"
    figure = show_figure(
        "composition",
        "Types by site",
        alt,
        lambda ax: draw_composition(_colour(obs, labels_key, types), batch_key, labels_key, ax=ax),
        (8, height),
    )
    return (
        "<p>Where sites hold different types, that they lie apart is biology, and no correction should mix them. "
        f"{text(told)}{unlabelled}</p>{figure}"
    )


def confidence(obs: pd.DataFrame, labels_key: str | None, types: Group | None) -> str:
    """How sure the classifier is of the types, and which labels it contradicts; ``types`` have the colours."""
    from fedscgen._data import CELL_TYPE_KEY, CONFIDENCE_KEY, CONFLICT_KEY

    given = CONFIDENCE_KEY in obs and CONFLICT_KEY in obs
    if not given or not np.isfinite(obs[CONFIDENCE_KEY].to_numpy(dtype=float)).any():
        return (
            "<p>No cell was given a type with a probability: the run had no classifier, for which it takes labels of "
            "types that several sites share.</p>"
        )
    conflicts = obs[CONFLICT_KEY].to_numpy(dtype=bool)
    n_groups = obs[CELL_TYPE_KEY].nunique(dropna=False)
    alt = f"Probability of the cells' types by type; {conflicts.sum():,} labels are contradicted, of {len(obs):,} cells"
    figure = show_figure(
        "confidence",
        "How probable each type is",
        alt,
        lambda ax: draw_confidence(_colour(obs, CELL_TYPE_KEY, types), CELL_TYPE_KEY, ax=ax),
        (7.5, 1.4 + 0.35 * n_groups),
    )
    lead = (
        "<p>A classifier that the sites have learnt together says how probable each cell's type is, also where the "
        "label came from you. A box holds the middle half of the cells, its line is their median. A "
        "type without a box is one that the classifier doesn't know.</p>"
    )
    if labels_key is None or not conflicts.any():
        return f"{lead}{figure}<p>No label is contradicted by classifier and neighbours.</p>"
    return f"{lead}{figure}{_list_conflicts(obs[labels_key].astype(str), conflicts)}"


def _list_conflicts(labels: pd.Series, conflicts: np.ndarray) -> str:
    doubted, sizes = labels[conflicts].value_counts(), labels.value_counts()
    rows = "".join(
        f"<tr><th scope='row'>{text(label)}</th><td class='number'>{n:,}</td><td class='number'>{sizes[label]:,}</td>"
        f"<td class='number'>{n / sizes[label]:.0%}</td></tr>"
        for label, n in doubted.iloc[:_MOST_LABELS].items()
    )
    more = f" The {_MOST_LABELS} most frequent are listed." if len(doubted) > _MOST_LABELS else ""
    return (
        f"<p>The labels of {conflicts.sum():,} of {len(labels):,} cells are contradicted by the classifier and by the "
        "cells' neighbours: they are wrong, or types run into each other. They stay as they are; "
        f"<code>fedscgen_label_conflict</code> marks the cells.{more}</p><div class='scroll'><table><thead><tr>"
        "<th scope='col'>Label</th><th scope='col' class='number'>In doubt</th>"
        "<th scope='col' class='number'>Cells</th>"
        f"<th scope='col' class='number'>Share</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def expression(adata: AnnData, layer: str, batch_key: str, labels_key: str | None) -> str:
    """Whether corrected expression still says what it said of the types at each site."""
    if layer not in adata.layers:
        return "<p>The run gave corrected places in latent space alone: there is no corrected expression to check.</p>"
    if labels_key is None:
        return "<p>No cell has a label: whether types keep the genes that mark them can't be checked.</p>"
    labelled = adata.obs[labels_key].notna().to_numpy()
    chosen = _choose_genes(adata)
    genes = np.flatnonzero(chosen) if chosen.sum() < adata.n_vars else slice(None)
    before, after = adata.X[labelled][:, genes], adata.layers[layer][labelled][:, genes]
    groups = [adata.obs[key][labelled].astype(str).to_numpy() for key in (batch_key, labels_key)]
    try:
        kept, counts = expression_conservation(before, after, *groups), count_invented_genes(before, after, *groups)
    except (UndefinedMetricError, ValueError) as error:
        return f"<p>Corrected expression can't be checked on these cells: {text(error)}.</p>"
    values = {
        "Markers kept": (
            f"{kept['marker_overlap']:.2f}",
            "of the 20 genes that mark a type at a site before correction, the share that still do; 1 is best",
        ),
        "Order of genes kept": (
            f"{kept['expression_spearman']:.3f}",
            f"rank correlation of a type's mean expression before and after, by site; the lowest is "
            f"{kept['expression_spearman_min']:.3f}; 1 is best",
        ),
        "Genes that differ, before": (
            f"{counts['before']:,}",
            f"between a type and the others of its site, of {counts['tested']:,} tests (Wilcoxon, false discovery rate "
            "5 %)",
        ),
        "Genes that differ, after": (f"{counts['after']:,}", "the same with corrected expression"),
        "Invented": (
            f"{counts['invented']:,}",
            "differ after correction alone, or the other way round than before; 0 is best",
        ),
    }
    rows = "".join(
        f"<tr><th scope='row'>{name}<br><small>{meaning}</small></th><td class='number'>{value}</td></tr>"
        for name, (value, meaning) in values.items()
    )
    sample = f" Checked on {chosen.sum():,} of the genes, chosen at random." if chosen.sum() < adata.n_vars else ""
    return (
        "<p>Within a site no batch effect lies between two types, so that a correction has no reason to change by "
        f"which genes they differ. Whatever stands here, test genes on uncorrected counts.{sample}</p>"
        "<div class='scroll'><table><thead><tr><th scope='col'>Check</th>"
        "<th scope='col' class='number'>Value</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _choose_genes(adata: AnnData) -> np.ndarray:
    """Which genes are checked: of those that were corrected, at most so many, at random; shape ``(n_genes,)``."""
    from fedscgen._data import KNOWN_KEY

    corrected = np.ones(adata.n_vars, dtype=bool)
    if KNOWN_KEY in adata.var:
        corrected = adata.var[KNOWN_KEY].to_numpy(dtype=bool)
    if corrected.sum() <= _MOST_GENES:
        return corrected
    drawn = np.random.default_rng(_SEED).choice(np.flatnonzero(corrected), _MOST_GENES, replace=False)
    return np.isin(np.arange(adata.n_vars), drawn)


def _colour(obs: pd.DataFrame, key: str, types: Group | None) -> AnnData:
    """Cells without expression, whose types have the colours that they have elsewhere on the page."""
    from anndata import AnnData

    column = obs[key].astype("category")
    known = {} if types is None else dict(zip(types.names, types.marks, strict=True))
    colours = [known[name].colour if name in known else _OTHER for name in column.cat.categories.astype(str)]
    return AnnData(obs=obs.assign(**{key: column}), uns={f"{key}_colors": colours} if known else {})
