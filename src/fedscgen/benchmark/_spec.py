"""The specification of a benchmark as values: data, methods and experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedscgen.benchmark._kinds import Kind
from fedscgen.benchmark._protocols import NoisySites
from fedscgen.datasets import Inclusion

Classifier = Literal["MLP", "k-NN", "k-means"]


class SpecError(ValueError):
    """A specification that can't be run; the message names the file, the table, the value and the remedy."""


@dataclass(frozen=True)
class DataSource:
    """Where cells come from: a name that is known, a file, or the simulator.

    Parameters
    ----------
    name
        What tables call it. Without file or simulator, it is that of a published data set, or ``"demo"``.
    file
        An ``.h5ad`` file of the user.
    batch_key, labels_key
        The file's columns of ``obs`` with batches and cell types.
    simulate
        Settings of :func:`fedscgen.datasets.simulate_sites`.
    minor_types
        Cell types that ``dropped`` and ``combined`` leave out or merge; those of a published set are known.
    given_labels_key
        The file's column of ``obs`` with coarser cell types, which experiments of the kind ``finer_labels`` give.
    coarser
        Such types for data without that column: names of coarser types, each with those that it takes together.
    """

    name: str
    file: str | None = None
    batch_key: str = "batch"
    labels_key: str = "cell_type"
    simulate: Mapping[str, Any] | None = None
    minor_types: tuple[str, ...] = ()
    given_labels_key: str | None = None
    coarser: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def has_coarser_labels(self) -> bool:
        """Whether there are labels coarser than those with which cells are scored."""
        return self.given_labels_key is not None or bool(self.coarser)


@dataclass(frozen=True)
class MethodSettings:
    """A method as it is to be run: one that is registered, under any name, with settings of its own."""

    like: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """Every method on every data set, with every seed.

    Parameters
    ----------
    name
        What tables call it.
    kind
        What is asked; one of :data:`KINDS`, which says it of each.
    data, methods
        Names of the specification's tables.
    seeds
        Each run has one of these.
    inclusion
        What becomes of minor cell types. Data without any run with ``"all"`` alone.
    shares
        For ``"hidden_labels"`` and ``"label_noise"``: the shares of cells that have no label, or a wrong one.
    noisy_sites
        For ``"label_noise"``: whether ``"one"`` site, which the seed draws, or ``"all"`` have wrong labels.
    cell_type
        For ``"random_split"`` and ``"renamed_type"``: the type. By default the one with most cells of those that
        several batches hold.
    n_rounds, n_epochs
        For ``"tuning"``: the numbers of rounds, and of epochs per round, that are tried.
    classifiers
        For ``"batch_out"``: trained on the cell types of the other batches, and asked for those of the one left out.
    """

    name: str
    kind: Kind
    data: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    inclusion: tuple[Inclusion, ...] = ("all",)
    shares: tuple[float, ...] = ()
    noisy_sites: NoisySites = "one"
    cell_type: str | None = None
    n_rounds: int = 0
    n_epochs: tuple[int, ...] = ()
    classifiers: tuple[Classifier, ...] = ()


@dataclass(frozen=True)
class Spec:
    """A benchmark.

    Parameters
    ----------
    name, description
        What the benchmark is called, and what it is about.
    min_cells
        Cells of types with fewer cells are corrected with the others, but not measured.
    data, methods
        Data and methods by name.
    experiments
        The experiments in the order of the file.
    """

    name: str
    description: str
    min_cells: int
    data: Mapping[str, DataSource]
    methods: Mapping[str, MethodSettings]
    experiments: tuple[Experiment, ...]
