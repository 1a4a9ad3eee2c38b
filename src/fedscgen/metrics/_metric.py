"""What a metric is, which there are, and how another package adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from fedscgen._registry import Registry
from fedscgen._types import check_choice
from fedscgen.metrics._agreement import kmeans_clusters
from fedscgen.metrics._neighbors import neighbors_and_distances

if TYPE_CHECKING:
    import numpy as np

MetricGroup = Literal["bio conservation", "batch correction"]
"""What a metric asks: whether cell types stay apart, or whether batches mix."""

_N_NEIGHBORS = 90  # the most that a metric of this package needs
_NAMES_OF_MEANS = ("bio", "batch", "total", "scib bio", "scib batch", "scib total")


@dataclass(frozen=True)
class EmbeddedCells:
    """What a metric is given: cells in an embedding, all checked.

    Parameters
    ----------
    embedding
        Shape ``(n_cells, n_dimensions)``.
    before
        The uncorrected embedding, shape ``(n_cells, any)``.
    batch, labels
        Batch and cell type of each cell as codes ``0, 1, ...``, shape ``(n_cells,)``. There are at least two of each.
    seed
        Seed of all random numbers.
    """

    embedding: np.ndarray
    before: np.ndarray
    batch: np.ndarray
    labels: np.ndarray
    seed: int = 0

    @cached_property
    def clusters(self) -> np.ndarray:
        """As many k-means clusters as there are cell types, as codes of shape ``(n_cells,)``."""
        return kmeans_clusters(self.embedding, int(self.labels.max()) + 1, seed=self.seed)

    @property
    def neighbors(self) -> np.ndarray:
        """Positions of each cell's 90 nearest cells, itself included, nearest first; shape ``(n_cells, 90)``.

        The first ``n`` columns are the ``n`` nearest. There are fewer columns where there are fewer cells.
        """
        return self._search[0]

    @property
    def distances(self) -> np.ndarray:
        """Euclidean distances of the :attr:`neighbors`, of the same shape."""
        return self._search[1]

    @cached_property
    def _search(self) -> tuple[np.ndarray, np.ndarray]:
        return neighbors_and_distances(self.embedding, _N_NEIGHBORS)


@dataclass(frozen=True)
class Metric:
    """A metric and what it is about.

    Parameters
    ----------
    measure
        Function that takes the cells and returns a number; unless said otherwise, higher is better and 1 is best. It
        raises :class:`UndefinedMetricError` where the cells are well formed, but it has no value on them.
    group
        What it asks.
    meaning
        What a high value says, in one line.
    lower_is_better
        Whether it counts something bad; 0 is best then.
    scored_on
        What it looks at in the embedding, in few words.
    """

    measure: Callable[[EmbeddedCells], float]
    group: MetricGroup
    meaning: str = ""
    lower_is_better: bool = False
    scored_on: str = ""


_METRICS: Registry[Metric] = Registry("metric")


def register_metric(name: str, metric: Metric, *, overwrite: bool = False) -> None:
    """Add a metric to those of :func:`all_metrics`, and so to the tables and the report of a benchmark.

    The means that :func:`all_metrics` gives are of this package's metrics alone, so that they compare wherever they
    were computed.

    Parameters
    ----------
    name
        What tables call it.
    metric
        The metric.
    overwrite
        Replace a metric of that name.

    Raises
    ------
    TypeError
        It is no :class:`Metric`, such as a function alone.
    ValueError
        The name is empty, taken, or that of a mean; or there is no such group.
    """
    if not isinstance(metric, Metric):
        raise TypeError(f"metric {name!r} is a {type(metric).__name__}, not a Metric: pass Metric(function, group=...)")
    check_choice(metric.group, MetricGroup, "group of metrics")
    if name in _NAMES_OF_MEANS:
        raise ValueError(f"{name!r} is the name of a mean of metrics: choose another name")
    _METRICS.register(name, metric, overwrite=overwrite)


def list_metrics() -> dict[str, Metric]:
    """All metrics by name: this package's own first, then those that other packages registered."""
    return {name: _METRICS.find(name) for name in _METRICS.names()}
