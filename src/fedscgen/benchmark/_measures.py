"""What is measured of a method's result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.benchmark._cells import BATCH, UNLABELLED, Embedded
from fedscgen.benchmark._classification import classify
from fedscgen.benchmark._naming import score_naming
from fedscgen.benchmark._tables import QUANTILES

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen._rows import Matrix
    from fedscgen.benchmark._protocols import Labelling
    from fedscgen.benchmark._tasks import Task

_SHOWN_CELLS = 2_000
_LISI_NEIGHBORS = 90  # as scib-metrics takes


@dataclass(frozen=True)
class Yardstick:
    """What an embedding is held against.

    Parameters
    ----------
    adata
        The cells.
    before
        Their embedding before correction, shape ``(n_cells, any)``.
    labelling
        Labels as given, and those that count.
    min_cells
        Cells of types of which fewer are scored aren't measured.

    Raises
    ------
    ValueError
        No type has so many cells.
    """

    adata: AnnData
    before: np.ndarray
    labelling: Labelling
    min_cells: int

    def __post_init__(self) -> None:
        if not self.chosen.any():
            n_scored = int(self.labelling.scored.sum())
            raise ValueError(f"no cell type has {self.min_cells} of the {n_scored} cells scored: lower min_cells")

    @cached_property
    def chosen(self) -> np.ndarray:
        """Whether a cell is measured, shape ``(n_cells,)``, boolean."""
        _, codes = np.unique(self.labelling.truth, return_inverse=True)
        n_scored = np.bincount(codes, weights=self.labelling.scored)
        return np.asarray(self.labelling.scored & (n_scored[codes] >= self.min_cells))

    @cached_property
    def batch(self) -> np.ndarray:
        """Each cell's batch."""
        return np.asarray(self.adata.obs[BATCH].astype(str))


def measure_integration(task: Task, yardstick: Yardstick, embedding: np.ndarray) -> dict[str, float]:
    """All metrics of the cells that are measured."""
    from fedscgen.metrics import all_metrics

    cells = yardstick.chosen
    batch, labels = yardstick.batch[cells], yardstick.labelling.truth[cells]
    return all_metrics(embedding[cells], batch, labels, before=yardstick.before[cells], seed=task.seed)


def measure_lisi(yardstick: Yardstick, embedding: np.ndarray) -> list[dict[str, Any]]:
    """How LISI is distributed over the cells that are measured."""
    from fedscgen.metrics import lisi_per_cell, neighbors_and_distances

    cells, rows = yardstick.chosen, []
    neighbors, distances = neighbors_and_distances(embedding[cells], _LISI_NEIGHBORS)
    for name, groups in (("iLISI", yardstick.batch[cells]), ("cLISI", yardstick.labelling.truth[cells])):
        quantiles = np.nanquantile(lisi_per_cell(neighbors, distances, groups), list(QUANTILES.values()))
        named = dict(zip(QUANTILES, quantiles.tolist(), strict=True))
        rows.append({"metric": name, "n_groups": len(np.unique(groups)), **named})
    return rows


def measure_naming(task: Task, yardstick: Yardstick, embedded: Embedded) -> dict[str, float]:
    """Whether cells are named rightly of which the protocol asks; nothing where it asks of none.

    The method's own names count where a cell had no label: what it says of one that had a wrong label may be just that.
    """
    labelling = yardstick.labelling
    asked, known = labelling.asked & yardstick.chosen, labelling.given != UNLABELLED
    if not asked.any():
        return {}
    cells = asked | (known & ~labelling.asked)
    own = None
    if embedded.cell_types is not None and not known[asked].any():
        own = np.asarray(embedded.cell_types, dtype=object)[cells]
    return score_naming(
        embedded.embedding[cells],
        labelling.given[cells],
        labelling.truth[cells],
        asked[cells],
        own=own,
        seed=task.seed,
    )


def measure_split(yardstick: Yardstick, embedded: Embedded) -> dict[str, float]:
    """What tells the random halves of a type apart, in the embedding and in corrected expression."""
    from fedscgen.metrics import halves_accuracy, n_different_genes

    labelling = yardstick.labelling
    cells = labelling.truth == labelling.cell_type
    halves = labelling.given[cells]
    accuracy = halves_accuracy(embedded.embedding[cells], halves)
    uncorrected = halves_accuracy(yardstick.before[cells], halves)
    values = {"split_accuracy": accuracy, "split_accuracy_gain": accuracy - uncorrected}
    if embedded.expression is None:
        return values
    n_genes, n_before = (n_different_genes(each[cells], halves) for each in (embedded.expression, yardstick.adata.X))
    return {**values, "split_genes": float(n_genes), "invented_genes": float(n_genes - n_before)}


def measure_expression(task: Task, yardstick: Yardstick, corrected: Matrix) -> dict[str, float]:
    """Whether types keep their expression and their markers at each site."""
    from fedscgen.metrics import expression_conservation

    labels = yardstick.labelling.truth
    return expression_conservation(yardstick.adata.X, corrected, yardstick.batch, labels, min_cells=task.min_cells)


def measure_classifiers(task: Task, yardstick: Yardstick, embedding: np.ndarray) -> list[dict[str, Any]]:
    """How classifiers name the cells of a batch that is left out."""
    cells, labelling = yardstick.chosen, yardstick.labelling
    rows = []
    for classifier in task.classifiers:
        asked = labelling.held_out[cells]
        values = classify(classifier, embedding[cells], labelling.truth[cells], asked, seed=task.seed)
        rows += [{"classifier": classifier, "metric": name, "value": value} for name, value in values.items()]
    return rows


def take_picture(yardstick: Yardstick, embedding: np.ndarray) -> dict[str, np.ndarray]:
    """Lay some cells out in the plane, with their batches and types; none if the model diverged."""
    from fedscgen.pl import umap_layout

    if not np.isfinite(embedding).all():
        return {}
    chosen = np.sort(np.random.default_rng(0).permutation(len(embedding))[:_SHOWN_CELLS])
    arrays = {"layout": umap_layout(embedding[chosen])}
    for name, values in (("batch", yardstick.batch), ("label", yardstick.labelling.truth)):
        names, codes = np.unique(values[chosen], return_inverse=True)
        arrays |= {name: codes, f"{name}_names": names.astype(str)}
    return arrays
