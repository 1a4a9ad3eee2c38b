"""One task: load cells, embed them, measure the embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.benchmark._cells import BATCH, LABELS, Cells
from fedscgen.benchmark._classification import classify
from fedscgen.benchmark._methods import N_COMPONENTS, find_method
from fedscgen.benchmark._tables import QUANTILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from fedscgen._data import Matrix
    from fedscgen.benchmark._spec import DataSource
    from fedscgen.benchmark._tasks import Task
    from fedscgen.datasets import Inclusion

_SHOWN_CELLS = 2_000
_LISI_NEIGHBORS = 90  # as scib-metrics takes


@dataclass
class Outcome:
    """What a task yields: rows of the tables, and the arrays of a picture."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    distributions: list[dict[str, Any]] = field(default_factory=list)
    picture: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Prepared:
    """Cells, their embedding before correction, and which of them are measured."""

    adata: AnnData
    before: np.ndarray
    measured: np.ndarray


def compute(task: Task, *, data_dir: str | None = None, accelerator: str = "cpu") -> Outcome:
    """Run a task in this process, whose random seeds it sets.

    Parameters
    ----------
    task
        What to run.
    data_dir
        Folder in which published data are looked for first.
    accelerator
        Where to train, as Lightning names it.

    Raises
    ------
    Exception
        Whatever goes wrong; nothing is written.
    """
    import scvi

    prepared = _prepare(task.data, task.inclusion, data_dir, task.min_cells)
    scvi.settings.seed = task.seed
    adata = prepared.adata
    names = sorted(adata.obs[BATCH].cat.categories)
    held_out = "" if task.held_out is None else names[task.held_out]
    train = adata if task.held_out is None else adata[adata.obs[BATCH] != held_out].copy()
    cells = Cells(adata, train, task.seed, accelerator)
    outcome = Outcome()
    method = find_method(task.method.like)
    if task.kind == "tuning":
        settings = {**task.method.settings, "n_rounds": task.n_rounds, "n_epochs": task.n_epochs}
        for n_rounds, embedding in method.round_by_round(cells, settings):
            _measure(outcome, task, prepared, embedding, {"n_rounds": n_rounds, "n_epochs": task.n_epochs})
        return outcome
    if task.kind == "expression":
        _measure_expression(outcome, task, adata, method.expression(cells, task.method.settings))
        return outcome
    embedding = method(cells, task.method.settings)
    _measure(outcome, task, prepared, embedding, {"held_out": held_out})
    if task.classifiers:
        _measure_classifiers(outcome, task, prepared, embedding, held_out)
    if task.pictured:
        outcome.picture = _take_picture(adata, embedding)
    return outcome


def _measure(outcome: Outcome, task: Task, prepared: _Prepared, embedding: np.ndarray, axes: Mapping[str, Any]) -> None:
    """Measure all metrics, and how LISI is distributed over the cells."""
    from fedscgen.metrics import all_metrics, lisi_per_cell, neighbors_and_distances

    cells = prepared.measured
    batch, labels = (prepared.adata.obs[key].astype(str).to_numpy()[cells] for key in (BATCH, LABELS))
    values = all_metrics(embedding[cells], batch, labels, before=prepared.before[cells], seed=task.seed)
    outcome.rows += [{"kind": task.kind, **axes, "metric": name, "value": value} for name, value in values.items()]
    if task.kind == "tuning":
        return
    neighbors, distances = neighbors_and_distances(embedding[cells], _LISI_NEIGHBORS)
    for name, groups in (("iLISI", batch), ("cLISI", labels)):
        quantiles = np.nanquantile(lisi_per_cell(neighbors, distances, groups), list(QUANTILES.values()))
        row = {"kind": task.kind, **axes, "metric": name, "n_groups": len(np.unique(groups))}
        outcome.distributions.append(row | dict(zip(QUANTILES, quantiles.tolist(), strict=True)))


def _measure_expression(outcome: Outcome, task: Task, adata: AnnData, corrected: Matrix) -> None:
    """Measure whether types keep their expression and their markers at each site."""
    from fedscgen.metrics import expression_conservation

    batch, labels = (adata.obs[key].astype(str).to_numpy() for key in (BATCH, LABELS))
    values = expression_conservation(adata.X, corrected, batch, labels, min_cells=task.min_cells)
    outcome.rows += [{"kind": task.kind, "metric": name, "value": value} for name, value in values.items()]


def _measure_classifiers(
    outcome: Outcome, task: Task, prepared: _Prepared, embedding: np.ndarray, held_out: str
) -> None:
    obs, cells = prepared.adata.obs, prepared.measured
    labels, asked = obs[LABELS].to_numpy()[cells], (obs[BATCH] == held_out).to_numpy()[cells]
    for classifier in task.classifiers:
        values = classify(classifier, embedding[cells], labels, asked, seed=task.seed)
        axes = {"kind": "classification", "held_out": held_out, "classifier": classifier}
        outcome.rows += [{**axes, "metric": name, "value": value} for name, value in values.items()]


def _take_picture(adata: AnnData, embedding: np.ndarray) -> dict[str, np.ndarray]:
    """Lay some cells out in the plane, with their batches and types; none if the model diverged."""
    from fedscgen.pl import umap_layout

    if not np.isfinite(embedding).all():
        return {}
    chosen = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:_SHOWN_CELLS])
    arrays = {"layout": umap_layout(embedding[chosen])}
    for name, key in (("batch", BATCH), ("label", LABELS)):
        column = adata.obs[key].iloc[chosen].cat.remove_unused_categories()
        names = np.array([str(each) for each in column.cat.categories])
        arrays |= {name: column.cat.codes.to_numpy(), f"{name}_names": names}
    return arrays


_latest: dict[tuple[str, str, str | None, int], _Prepared] = {}  # of one data set: neighbouring tasks share it


def _prepare(source: DataSource, inclusion: Inclusion, data_dir: str | None, min_cells: int) -> _Prepared:
    """Load the cells, or take those that the last task had."""
    from scanpy.pp import pca

    from fedscgen.datasets import apply_inclusion

    key = (repr(source), inclusion, data_dir, min_cells)
    if key in _latest:
        return _latest[key]
    _latest.clear()
    adata = apply_inclusion(load_cells(source, data_dir=data_dir), inclusion, source.minor_types)
    labels = adata.obs[LABELS]
    measured = labels.map(labels.value_counts()).to_numpy(dtype=int) >= min_cells
    if not measured.any():
        raise ValueError(f"no cell type of {source.name!r} has {min_cells} cells: lower min_cells")
    n_components = min(N_COMPONENTS, adata.n_obs - 1, adata.n_vars - 1)
    _latest[key] = _Prepared(adata, pca(adata.X, n_comps=n_components, random_state=0), measured)
    return _latest[key]


def load_cells(source: DataSource, *, data_dir: str | None = None) -> AnnData:
    """Load or simulate cells with categories ``obs["batch"]`` and ``obs["cell_type"]``.

    Log-normalised; published data scaled as well, as published.
    """
    from fedscgen.datasets import load_dataset, load_file, simulate_sites

    if source.simulate is not None:
        return simulate_sites(**source.simulate)
    if source.file is not None:
        return load_file(source.file, batch_key=source.batch_key, labels_key=source.labels_key)
    return load_dataset(source.name, data_dir=data_dir)
