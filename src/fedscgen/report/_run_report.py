"""One self-contained HTML page about a run: what was done, what it led to, and what left the sites."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedscgen._words import quantity
from fedscgen.metrics import EmbeddedCells, UndefinedMetricError, list_metrics, metrics_table
from fedscgen.pl import (
    LABEL_COLOURS,
    SITE_COLOURS,
    Group,
    choose_cells,
    group_column,
    principal_components,
    umap_layout,
)
from fedscgen.report import _cell_sections as of_cells
from fedscgen.report import _run_sections as sections
from fedscgen.report._figures import show_embedding
from fedscgen.report.page import facts, section, text, volume, write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)

HISTORY_COLUMNS = ("site", "round", "epoch", "train_loss", "validation_loss")
LEDGER_COLUMNS = ("sender", "receiver", "kind", "bytes", "protection")
_MAX_CELLS = 20_000  # that are laid out, drawn and measured
_MIN_CELLS = 3
_OF_NEIGHBORHOODS = ("kBET", "iLISI", "cLISI")
_SEED = 0


@dataclass(frozen=True)
class _Cells:
    """The cells shown: both embeddings of shape ``(n_shown, ...)``, their groups, and how many there are in all.

    Without cell types there are no ``labels``.
    """

    before: np.ndarray
    after: np.ndarray
    sites: Group
    labels: Group | None
    n_all: int

    @property
    def n_shown(self) -> int:
        return len(self.after)


def write_report(
    path: str | os.PathLike[str],
    adata: AnnData,
    *,
    batch_key: str,
    labels_key: str | None,
    history: pd.DataFrame,
    ledger: pd.DataFrame | None = None,
    settings: Mapping[str, Any] | None = None,
    embedding: str = "X_fedscgen",
    uses_labels: bool | None = None,
    types: pd.DataFrame | None = None,
    notes: Sequence[str] = (),
    inputs: Sequence[str] = (),
    warnings: Sequence[str] | None = None,
    obs: pd.DataFrame | None = None,
    expression: str = "fedscgen_corrected",
) -> None:
    """Write a report of a run as one HTML file that needs neither scripts nor the network.

    It shows UMAPs before and after correction by site and by cell type, what moved, types by site, predicted types and
    labels in doubt, integration metrics, checks of corrected expression, training curves, a summary of what left the
    sites, warnings, input, settings and versions. What is missing is said. Above 20,000 cells a random subset is shown
    and measured, and the report says so. Nothing is added to ``adata``, and the settings of scanpy and matplotlib stay
    as they are.

    Parameters
    ----------
    path
        The file to write. It appears whole or not at all; a file of that name is replaced.
    adata
        The corrected cells of all sites: ``X`` of shape ``(n_cells, n_genes)`` holds the expression before correction
        (log-normalised, sparse or dense), ``obsm[embedding]`` the corrected latent vectors.
    batch_key, labels_key
        Columns of ``adata.obs`` with the site and the cell type; without the latter the report shows sites alone.
    history
        One row per site, round and local epoch: ``site``, ``round``, ``epoch``, ``train_loss`` and ``validation_loss``
        (NaN where there is none); further columns are ignored. It may be empty.
    ledger
        One row per message: ``sender``, ``receiver`` (the coordinator is ``"server"``), ``kind``, ``bytes`` and
        ``protection``; further columns are ignored.
    settings
        Settings of the run, by name, to be listed.
    embedding
        Key of ``adata.obsm``.
    uses_labels
        Whether labels told where cells belong; if not, the report says so. ``None``: it isn't known.
    types
        What moved, a row per site and cell type; see :class:`fedscgen.federation.SimulationResult`.
    notes
        What else is to be known of the data, such as that they were normalised; a sentence each.
    inputs
        What the cells were read from, such as names of files.
    warnings
        What was warned of in the run. ``None``: nobody kept it.
    obs
        Columns of all cells, where ``adata`` has those alone that have a label: of these the page tells types by site,
        predicted types and labels in doubt. ``None``: ``adata.obs``.
    expression
        Key of ``adata.layers`` with corrected expression, which is checked where it is there.

    Raises
    ------
    KeyError
        ``adata`` lacks a column or the embedding.
    ValueError
        Fewer than three cells or two genes, no ``X``, an embedding that isn't finite, or a table that lacks a column.
    FileNotFoundError
        The folder of ``path`` doesn't exist.
    """
    path = Path(path)
    _check(path, adata, [key for key in (batch_key, labels_key) if key is not None], embedding)
    _check_columns(history, HISTORY_COLUMNS, "history")
    if ledger is not None:
        _check_columns(ledger, LEDGER_COLUMNS, "ledger")
    chosen = choose_cells(adata.n_obs, _MAX_CELLS, _SEED)
    part = adata if len(chosen) == adata.n_obs else adata[chosen]
    cells = _choose_cells(adata, chosen, batch_key, labels_key, embedding)
    told = adata.obs if obs is None else obs
    simulated = "simulated_site_effects" in adata.uns
    lead = sections.lead(history, settings or {}, recorded=ledger is not None, simulated=simulated)
    lead += "".join(f"\n{sections.note(sentence)}" for sentence in notes)
    lead += "" if uses_labels is None or uses_labels else f"\n{sections.lost_labels()}"
    write_page(
        path,
        kind="report",
        title=f"{quantity(len(cells.sites.names), 'site')}, {adata.n_obs:,} cells: before and after correction",
        head=f"<div class='lead'>{lead}</div>\n{facts(_count(adata, cells, history, ledger))}",
        sections=[
            section("cells", "The cells before and after", _draw_umaps(cells, embedding)),
            *([] if types is None else [section("moved", "What moved", sections.list_moved(types))]),
            section("types", "Types at the sites", of_cells.composition(told, batch_key, labels_key, cells.labels)),
            section(
                "confidence",
                "Predicted types, and labels in doubt",
                of_cells.confidence(told, labels_key, cells.labels),
            ),
            section("metrics", "Integration in numbers", _measure(cells)),
            section("expression", "Corrected expression", of_cells.expression(part, expression, batch_key, labels_key)),
            section("training", "Training", sections.training(history, cells.sites)),
            section("ledger", "What left the sites", sections.ledger(ledger)),
            section("warnings", "Warnings", sections.warnings(warnings)),
            section("settings", "Input, settings and versions", sections.settings(settings, inputs)),
        ],
    )
    logger.info("Report written to %s", path)


def _check(path: Path, adata: AnnData, columns: Sequence[str], embedding: str) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} for the report doesn't exist: create it first")
    for column in columns:
        if column not in adata.obs:
            raise KeyError(f"adata.obs has no column {column!r}: it has {', '.join(map(repr, adata.obs)) or 'none'}")
    if embedding not in adata.obsm:
        raise KeyError(
            f"adata.obsm has no {embedding!r} (it has {', '.join(map(repr, adata.obsm)) or 'nothing'}): pass what "
            "correct() returned, or name its embedding"
        )
    if adata.n_obs < _MIN_CELLS or adata.n_vars < 2:
        raise ValueError(
            f"{adata.n_obs} cells x {adata.n_vars} genes are too few to draw: a report needs {_MIN_CELLS} cells and 2 "
            "genes"
        )
    if adata.X is None:
        raise ValueError("adata.X is empty: a report compares with the expression before correction, so keep it in X")
    if not np.isfinite(adata.obsm[embedding]).all():
        raise ValueError(f"adata.obsm[{embedding!r}] holds NaN or infinity: look for the step that produced it")


def _check_columns(table: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"the {what} has no column {', '.join(map(repr, missing))} (it has "
            f"{', '.join(map(repr, table)) or 'none'}): pass the {what} of a run as it is"
        )


def _choose_cells(adata: AnnData, chosen: np.ndarray, batch_key: str, labels_key: str | None, embedding: str) -> _Cells:
    """Find the principal components over all cells, then keep those that are shown, in their order."""
    return _Cells(
        before=principal_components(adata, seed=_SEED)[chosen],
        after=np.asarray(adata.obsm[embedding])[chosen],
        sites=_take(group_column(adata, batch_key, SITE_COLOURS), chosen),
        labels=None
        if labels_key is None
        else _take(group_column(adata, labels_key, LABEL_COLOURS, by_size=True), chosen),
        n_all=adata.n_obs,
    )


def _take(groups: Group, chosen: np.ndarray) -> Group:
    """These cells, and the groups that they are of."""
    present, codes = np.unique(groups.codes[chosen], return_inverse=True)
    names, marks = (tuple(each[code] for code in present) for each in (groups.names, groups.marks))
    return Group(names, marks, codes)


def _count(adata: AnnData, cells: _Cells, history: pd.DataFrame, ledger: pd.DataFrame | None) -> dict[str, str]:
    """The numbers at the top of the page, by what they count."""
    counts = {"cell": adata.n_obs, "gene": adata.n_vars, "site": len(cells.sites.names)}
    counts |= {"cell type": len(cells.labels.names) if cells.labels else 0, "round": history["round"].nunique()}
    shown = {noun if n == 1 else f"{noun}s": f"{n:,}" for noun, n in counts.items() if n}
    if ledger is not None:
        shown["left the sites"] = volume(ledger.loc[sections.is_from_site(ledger), "bytes"].sum())
    return shown


def _draw_umaps(cells: _Cells, embedding: str) -> str:
    layouts = {"before": umap_layout(cells.before, seed=_SEED), "after": umap_layout(cells.after, seed=_SEED)}
    n_shown = None if cells.n_shown == cells.n_all else cells.n_shown
    lead = sections.cells(cells.n_all, n_shown, n_components=cells.before.shape[1], embedding=embedding)
    by_site = show_embedding("By site", "site", layouts, cells.sites, numbered=False)
    if cells.labels is None:
        return f"{lead}\n{by_site}"
    return f"{lead}\n{by_site}{show_embedding('By cell type', 'cell type', layouts, cells.labels, numbered=True)}"


def _measure(cells: _Cells) -> str:
    if cells.labels is None:
        return "<p>No cell has a label: whether types stay apart, and sites mix within them, can't be measured.</p>"
    try:
        embeddings = {"before": cells.before, "after": cells.after}
        table = metrics_table(embeddings, cells.sites.of_cells(), cells.labels.of_cells(), seed=_SEED)
    except ValueError as error:
        return f"<p>The metrics can't be computed on these cells: {text(error)}.</p>"
    table, missing = _measure_neighborhoods(table, cells, cells.labels.codes)
    return sections.metrics(table, cells.n_shown, missing)


def _measure_neighborhoods(table: pd.DataFrame, cells: _Cells, types: np.ndarray) -> tuple[pd.DataFrame, str]:
    """The table with the metrics that need an extra, or why they are missing."""
    known = list_metrics()
    for when, embedding in (("before", cells.before), ("after", cells.after)):
        now, before = (np.asarray(each, dtype=np.float64) for each in (embedding, cells.before))
        embedded = EmbeddedCells(now, before, cells.sites.codes, types, _SEED)
        for name in _OF_NEIGHBORHOODS:
            try:
                table.loc[when, name] = known[name].measure(embedded)
            except UndefinedMetricError as error:
                logger.warning("%s has no value on the cells %s correction: %s", name, when, error)
                table.loc[when, name] = np.nan
            except ModuleNotFoundError as error:
                return table, str(error)
    return table, ""
