"""The single runs that a specification asks for, each with an identity of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fedscgen.benchmark._spec import DataSource, Experiment, MethodSettings, Spec, SpecError

if TYPE_CHECKING:
    from fedscgen.benchmark._kinds import Kind
    from fedscgen.benchmark._protocols import NoisySites
    from fedscgen.benchmark._spec import Classifier
    from fedscgen.datasets import Inclusion

_FORMAT = 3  # raise it when a task means something else than before, so that finished ones are not taken for it


@dataclass(frozen=True)
class Task:
    """One run: everything that its result depends on, except for versions and device.

    Parameters
    ----------
    kind, inclusion, seed, classifiers
        See :class:`Experiment`.
    data
        Where the cells come from; the content of a user's file is named by ``fingerprint``.
    method
        The method and its settings.
    min_cells
        See :class:`Spec`.
    n_rounds, n_epochs
        For ``"tuning"``: rounds, and epochs per round.
    held_out
        Position, among the batches in alphabetical order, of the one that is left out of training or has no label.
    share
        Share of the cells that have no label, or a wrong one.
    noisy_sites, cell_type
        See :class:`Experiment`.
    pictured
        Whether the cells are laid out for a picture.
    fingerprint
        SHA-256 of a user's file.
    """

    kind: Kind
    data: DataSource
    method: MethodSettings
    seed: int
    min_cells: int
    inclusion: Inclusion = "all"
    n_rounds: int | None = None
    n_epochs: int | None = None
    held_out: int | None = None
    share: float | None = None
    noisy_sites: NoisySites = "one"
    cell_type: str | None = None
    classifiers: tuple[Classifier, ...] = ()
    pictured: bool = False
    fingerprint: str | None = None
    format: int = field(default=_FORMAT, kw_only=True)

    @property
    def condition(self) -> str:
        """What tables call the difficulty; empty where there is but one."""
        if self.share is None:
            return ""
        wrong = {"one": "wrong at one site", "all": "wrong"}[self.noisy_sites]
        return f"{100 * self.share:.3g} % {'hidden' if self.kind == 'hidden_labels' else wrong}"

    @property
    def id(self) -> str:
        """Name for files: the same for the same run, in whatever specification it stands."""
        return hashlib.sha256(self.to_json(identity=True).encode()).hexdigest()[:16]

    def to_json(self, *, identity: bool = False) -> str:
        """Write everything as one line; for an identity, without what only gives things a name."""
        content = asdict(self)
        if identity and self.data.file:
            content["data"]["file"] = content["data"]["name"] = None  # the fingerprint tells
        elif identity and self.data.simulate is not None:
            content["data"]["name"] = None
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        content = json.loads(text)
        source, classifiers = content["data"], tuple(content["classifiers"])
        data = DataSource(**{**source, "minor_types": tuple(source["minor_types"])})
        return cls(
            **{**content, "data": data, "method": MethodSettings(**content["method"]), "classifiers": classifiers}
        )


@dataclass(frozen=True)
class Planned:
    """A task's place in an experiment."""

    experiment: str
    method: str
    task: Task


@dataclass(frozen=True)
class DataSize:
    """How large data are, as far as is known before they are loaded."""

    n_batches: int
    n_cells: int | None = None
    n_genes: int | None = None


def plan(spec: Spec) -> list[Planned]:
    """All runs that a specification asks for, in its order.

    Raises
    ------
    SpecError
        Data are unknown or can't be read, or an experiment is left with no run.
    """
    planned = []
    for experiment in spec.experiments:
        runs = list(_list_runs(spec, experiment))
        if not runs:
            raise SpecError(f"experiment {experiment.name!r} has no run: {_say_what_is_missing(experiment)}")
        planned += runs
    return planned


def _say_what_is_missing(experiment: Experiment) -> str:
    if experiment.kind == "finer_labels":
        return "it needs data with given_labels_key or coarser"
    return f"{', '.join(experiment.inclusion)} needs data with minor_types"


def unique_tasks(planned: Iterable[Planned]) -> list[Task]:
    """Each task once, however many experiments share it."""
    return list({run.task.id: run.task for run in planned}.values())


def _list_runs(spec: Spec, experiment: Experiment) -> Iterator[Planned]:
    for name in experiment.data:
        source = _add_minor_types(spec.data[name])
        if experiment.kind == "finer_labels" and not source.has_coarser_labels:
            continue
        n_batches = size_of(source).n_batches
        for inclusion in experiment.inclusion:
            if inclusion != "all" and not source.minor_types:
                continue
            for method in experiment.methods:
                for seed in experiment.seeds:
                    for axes in _axes(experiment, n_batches, seed):
                        task = Task(
                            experiment.kind,
                            source,
                            spec.methods[method],
                            seed,
                            spec.min_cells,
                            inclusion,
                            fingerprint=_fingerprint(source.file),
                            **axes,
                        )
                        yield Planned(experiment.name, method, task)


def _axes(experiment: Experiment, n_batches: int, seed: int) -> Iterator[dict[str, Any]]:
    if experiment.kind == "tuning":
        for n_epochs in experiment.n_epochs:
            yield {"n_rounds": experiment.n_rounds, "n_epochs": n_epochs}
    elif experiment.kind == "batch_out":
        for position in range(n_batches):
            first = seed == experiment.seeds[0]
            yield {"held_out": position, "classifiers": experiment.classifiers, "pictured": first}
    elif experiment.kind in ("unlabelled_site", "unlabelled_newcomer"):
        yield from ({"held_out": position} for position in range(n_batches))
    elif experiment.shares:
        yield from ({"share": share, "noisy_sites": experiment.noisy_sites} for share in experiment.shares)
    elif experiment.cell_type is not None:
        yield {"cell_type": experiment.cell_type}
    else:
        yield {}


def _add_minor_types(source: DataSource) -> DataSource:
    from fedscgen.datasets import DATASETS

    if source.minor_types or source.file or source.simulate is not None or source.name not in DATASETS:
        return source
    return replace(source, minor_types=DATASETS[source.name].minor_types)


@cache
def _fingerprint(file: str | None) -> str | None:
    if file is None:
        return None
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_of(source: DataSource) -> DataSize:
    """Number of batches, and of cells and genes where they are known.

    Raises
    ------
    SpecError
        There are no such data; the message names what there is.
    """
    from fedscgen.datasets import DATASETS

    if source.simulate is not None:
        return _size_of_simulation(source.name, source.simulate)
    if source.file is not None:
        return _size_of_file(source.name, source.file, source.batch_key)
    if source.name == "demo":
        return DataSize(3, 700, 765)
    if source.name not in DATASETS:
        raise SpecError(
            f"no data {source.name!r}: add a table [data.{source.name}] with file or simulate, or take 'demo' or one "
            f"of {', '.join(DATASETS)}"
        )
    return DataSize(DATASETS[source.name].n_batches, DATASETS[source.name].n_cells)


def _size_of_simulation(name: str, settings: Mapping[str, Any]) -> DataSize:
    import inspect

    from fedscgen.datasets import simulate_sites

    parameters = inspect.signature(simulate_sites).parameters
    unknown = sorted(set(settings) - set(parameters))
    if unknown:
        raise SpecError(f"[data.{name}] simulate sets {unknown[0]!r}: known are {', '.join(parameters)}")
    values = {key: parameter.default for key, parameter in parameters.items()} | dict(settings)
    return DataSize(values["n_sites"], values["n_cells"], values["n_genes"])


@cache
def _size_of_file(name: str, file: str, batch_key: str) -> DataSize:
    from fedscgen._read_cells import read_cells

    try:
        adata = read_cells(Path(file), on_disk=True)
    except (OSError, ValueError) as error:
        raise SpecError(f"[data.{name}] file {error}") from error
    try:
        if batch_key not in adata.obs:
            raise SpecError(f"[data.{name}] {file} has no obs[{batch_key!r}]: there are {', '.join(adata.obs)}")
        return DataSize(adata.obs[batch_key].nunique(), *adata.shape)
    finally:
        adata.file.close()
