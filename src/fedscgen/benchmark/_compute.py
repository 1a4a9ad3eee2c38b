"""One task: load cells, tell the method what its protocol lets it know, measure what the method makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedscgen.benchmark import _measures as measures
from fedscgen.benchmark import _protocols as protocols
from fedscgen.benchmark._cells import BATCH, LABELS, Cells, Embedded
from fedscgen.benchmark._methods import N_COMPONENTS, find_method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from fedscgen.benchmark._protocols import Labelling
    from fedscgen.benchmark._spec import DataSource
    from fedscgen.benchmark._tasks import Task
    from fedscgen.datasets import Inclusion

_WITH_LISI = ("integration", "batch_out")


@dataclass
class Outcome:
    """What a task yields: rows of the tables, and the arrays of a picture."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    distributions: list[dict[str, Any]] = field(default_factory=list)
    picture: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, axes: Mapping[str, Any], values: Mapping[str, float]) -> None:
        """Add a row for each value."""
        self.rows += [{**axes, "metric": name, "value": value} for name, value in values.items()]


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

    adata, before = _prepare(task.data, task.inclusion, data_dir)
    names = sorted(adata.obs[BATCH].cat.categories)
    batch = "" if task.held_out is None else names[task.held_out]
    yardstick = measures.Yardstick(adata, before, label_cells(task, adata, batch), task.min_cells)
    scvi.settings.seed = task.seed
    cells = give_cells(adata, yardstick.labelling, task, accelerator)
    outcome, method = Outcome(), find_method(task.method.like)
    axes = {"kind": task.kind, "held_out": batch, "cell_type": yardstick.labelling.cell_type}
    if task.kind == "tuning":
        settings = {**task.method.settings, "n_rounds": task.n_rounds, "n_epochs": task.n_epochs}
        for n_rounds, embedding in method.round_by_round(cells, settings):
            at_round = {**axes, "n_rounds": n_rounds, "n_epochs": task.n_epochs}
            outcome.add(at_round, measures.measure_integration(task, yardstick, embedding))
    elif task.kind == "expression":
        corrected = method.expression(cells, task.method.settings)
        outcome.add(axes, measures.measure_expression(task, yardstick, corrected))
    else:
        _measure(outcome, task, axes, yardstick, method.run(cells, task.method.settings))
    return outcome


def _measure(
    outcome: Outcome, task: Task, axes: Mapping[str, Any], yardstick: measures.Yardstick, embedded: Embedded
) -> None:
    """Measure all that an experiment of this kind asks of an embedding."""
    embedding = embedded.embedding
    outcome.add(axes, measures.measure_integration(task, yardstick, embedding))
    outcome.add(axes, measures.measure_naming(task, yardstick, embedded))
    if task.kind == "random_split":
        outcome.add(axes, measures.measure_split(yardstick, embedded))
    if task.kind in _WITH_LISI:
        outcome.distributions += [{**axes, **row} for row in measures.measure_lisi(yardstick, embedding)]
    for row in measures.measure_classifiers(task, yardstick, embedding):
        outcome.rows.append({**axes, "kind": "classification", **row})
    if task.pictured:
        outcome.picture = measures.take_picture(yardstick, embedding)


def label_cells(task: Task, adata: AnnData, batch: str) -> Labelling:
    """What the method is told of the cells' types, and what it is scored with; ``batch``: the one in question."""
    labels, batches = (adata.obs[key].astype(str).to_numpy() for key in (LABELS, BATCH))
    share = 0.0 if task.share is None else task.share
    match task.kind:
        case "hidden_labels":
            return protocols.hide_share(labels, batches, share, task.seed)
        case "unlabelled_site":
            return protocols.hide_site(labels, batches, batch)
        case "unlabelled_newcomer":
            return protocols.hide_newcomer(labels, batches, batch)
        case "label_noise":
            return protocols.replace_share(labels, batches, share, task.seed, sites=task.noisy_sites)
        case "renamed_type":
            return protocols.rename_type(labels, batches, task.seed, cell_type=task.cell_type)
        case "random_split":
            return protocols.split_type(labels, batches, task.seed, cell_type=task.cell_type)
        case "finer_labels":
            return protocols.give_coarser(labels, find_coarser(adata, task.data))
        case "batch_out":
            return protocols.hold_out(labels, batches, batch)
        case _:
            return protocols.give_all(labels)


def find_coarser(adata: AnnData, source: DataSource) -> np.ndarray:
    """Each cell's coarser type, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        The data have no such column, or miss it for some cells; or a type that is to be merged isn't there.
    """
    key, labels = source.given_labels_key, adata.obs[LABELS].astype(str)
    if key is not None:
        if key not in adata.obs or adata.obs[key].isna().any():
            raise ValueError(f"{source.name!r} has no obs[{key!r}] for all cells: there are {', '.join(adata.obs)}")
        return np.asarray(adata.obs[key].astype(str))
    merged = {name: coarse for coarse, names in source.coarser.items() for name in names}
    unknown = sorted(merged.keys() - set(labels))
    if unknown:
        raise ValueError(f"coarser merges {unknown[0]!r}, which {source.name!r} lacks: it has {', '.join(set(labels))}")
    return np.asarray(labels.replace(merged))


def give_cells(adata: AnnData, labelling: Labelling, task: Task, accelerator: str = "cpu") -> Cells:
    """Cells as the method gets them: of ``obs`` just batches and the labels as given, so that it learns no others."""
    from anndata import AnnData

    obs = pd.DataFrame({BATCH: adata.obs[BATCH], LABELS: pd.Categorical(labelling.given)}, index=adata.obs_names)
    given = AnnData(adata.X, obs=obs, var=adata.var, layers=dict(adata.layers))
    train = given[~labelling.held_out].copy() if labelling.held_out.any() else given
    return Cells(given, train, task.seed, accelerator, wants_expression=task.kind == "random_split")


# of one data set: neighbouring tasks share it
_latest: dict[tuple[str, str, str | None], tuple[AnnData, np.ndarray]] = {}


def _prepare(source: DataSource, inclusion: Inclusion, data_dir: str | None) -> tuple[AnnData, np.ndarray]:
    """Load the cells and their embedding before correction, or take those that the last task had."""
    from scanpy.pp import pca

    from fedscgen.datasets import apply_inclusion

    key = (repr(source), inclusion, data_dir)
    if key not in _latest:
        _latest.clear()
        adata = apply_inclusion(load_cells(source, data_dir=data_dir), inclusion, source.minor_types)
        n_components = min(N_COMPONENTS, adata.n_obs - 1, adata.n_vars - 1)
        _latest[key] = adata, pca(adata.X, n_comps=n_components, random_state=0)
    return _latest[key]


def load_cells(source: DataSource, *, data_dir: str | None = None) -> AnnData:
    """Cells with ``obs["batch"]`` and ``obs["cell_type"]`` as categories.

    Log-normalised; published data scaled as well, as published.
    """
    from fedscgen.datasets import load_dataset, load_file, simulate_sites

    if source.simulate is not None:
        return simulate_sites(**source.simulate)
    if source.file is not None:
        return load_file(source.file, batch_key=source.batch_key, labels_key=source.labels_key)
    return load_dataset(source.name, data_dir=data_dir)
