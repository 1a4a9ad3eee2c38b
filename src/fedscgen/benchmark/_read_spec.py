"""A specification is read from a TOML file, and what can't be run is refused by name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from fedscgen.benchmark._fedscgen import Embedding
from fedscgen.benchmark._kinds import KINDS
from fedscgen.benchmark._methods import find_method, list_methods
from fedscgen.benchmark._protocols import NoisySites
from fedscgen.benchmark._spec import Classifier, DataSource, Experiment, MethodSettings, Spec, SpecError
from fedscgen.datasets import Inclusion


def standard_specs() -> dict[str, str]:
    """Text of each specification that comes with the package, by name."""
    folder = resources.files(f"{__package__}.specs")
    return {Path(file.name).stem: file.read_text() for file in folder.iterdir() if file.name.endswith(".toml")}


def read_spec(spec: str | Path | Spec, *, extra_data: Mapping[str, str | Path] | None = None) -> Spec:
    """Read a specification, unless it has been read, and add data to it.

    Parameters
    ----------
    spec
        Path of a TOML file, or the name of one that comes with the package: ``"smoke"``, ``"paper"``, ``"quality"``.
    extra_data
        Further ``.h5ad`` files by the name that tables give them, for every experiment. Batches and cell types are in
        ``obs["batch"]`` and ``obs["cell_type"]``.

    Raises
    ------
    FileNotFoundError
        There is neither such a file nor such a name.
    SpecError
        It isn't TOML, something in it is missing, unknown or out of range, or it has data of such a name already.
    """
    read = spec if isinstance(spec, Spec) else _read_toml(spec)
    return _add_data(read, extra_data) if extra_data else read


def _add_data(spec: Spec, files: Mapping[str, str | Path]) -> Spec:
    taken = sorted(files.keys() & spec.data.keys())
    if taken:
        raise SpecError(f"{spec.name} has data {taken[0]!r} of its own: give {files[taken[0]]} another name")
    added = {name: DataSource(name, file=str(Path(file).resolve())) for name, file in files.items()}
    experiments = tuple(replace(experiment, data=(*experiment.data, *added)) for experiment in spec.experiments)
    return replace(spec, data={**spec.data, **added}, experiments=experiments)


def _read_toml(spec: str | Path) -> Spec:
    path, known = Path(spec), standard_specs()
    if path.is_file():
        text, folder = path.read_text(), path.parent
    elif str(spec) in known:
        text, folder = known[str(spec)], Path()
    else:
        raise FileNotFoundError(f"no specification {str(spec)!r}: neither a file nor one of {', '.join(sorted(known))}")
    try:
        return _Reader(str(spec), folder).read(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{spec} is not TOML: {error}") from error


class _Reader:
    """Turns a TOML file's tables into a :class:`Spec`, and says where they don't fit."""

    def __init__(self, file: str, folder: Path) -> None:
        self._file = file
        self._folder = folder

    def read(self, content: dict[str, Any]) -> Spec:
        self._check_keys(
            content, {"name", "description", "seeds", "min_cells", "data", "methods", "experiments"}, "the file"
        )
        data = {name: self._read_data(name, table) for name, table in content.get("data", {}).items()}
        methods = {name: MethodSettings(name) for name in list_methods()}
        methods |= {name: self._read_method(name, table) for name, table in content.get("methods", {}).items()}
        seeds = content.get("seeds", [0])
        tables = content.get("experiments", [])
        if not tables:
            raise self._error("there is no [[experiments]] table: add one with name, kind, data and methods")
        experiments = tuple(self._read_experiment({"seeds": seeds, **table}, data, methods) for table in tables)
        names = [experiment.name for experiment in experiments]
        if len(set(names)) < len(names):
            raise self._error(f"names of experiments repeat ({', '.join(names)}): give each its own")
        return Spec(
            name=content.get("name", Path(self._file).stem),
            description=content.get("description", ""),
            min_cells=self._check_positive(content, "min_cells", "the file", 10),
            data=data,
            methods=methods,
            experiments=experiments,
        )

    def _read_data(self, name: str, table: dict[str, Any]) -> DataSource:
        where = f"[data.{name}]"
        known = {"file", "batch_key", "labels_key", "simulate", "minor_types", "given_labels_key", "coarser"}
        self._check_keys(table, known, where)
        if "file" in table and "simulate" in table:
            raise self._error(f"{where} has both file and simulate: keep one")
        if "given_labels_key" in table and ("coarser" in table or "file" not in table):
            raise self._error(f"{where} has given_labels_key, which goes with a file, and without coarser")
        self._check_coarser(table.get("coarser", {}), where)
        if "file" in table:
            table = {**table, "file": str((self._folder / table["file"]).resolve())}
        return DataSource(name, **{**table, "minor_types": tuple(table.get("minor_types", ()))})

    def _check_coarser(self, coarser: object, where: str) -> None:
        if not isinstance(coarser, dict):
            raise self._error(f"{where}: coarser is {coarser!r}, not a table of lists")
        for name in coarser:
            self._check_list(coarser, name, f"{where} coarser", str)
        merged = [name for names in coarser.values() for name in names]
        if len(set(merged)) < len(merged):
            raise self._error(f"{where}: coarser puts a type into two: {merged}")

    def _read_method(self, name: str, table: dict[str, Any]) -> MethodSettings:
        where = f"[methods.{name}]"
        settings = self._read_names(table, where)
        if "model" in settings and isinstance(settings["model"], dict):
            settings["model"] = self._read_names(settings["model"], f"{where} model")
        like = settings.pop("like", name)
        known_methods = list_methods()
        if like not in known_methods:
            remedy = f"add like = one of {', '.join(known_methods)}"
            raise self._error(f"{where} is like {like!r}, which is no method: {remedy}")
        allowed = known_methods[like].settings()
        unknown = sorted(set(settings) - allowed)
        if unknown:
            known = ", ".join(sorted(allowed))
            raise self._error(f"{where} sets {unknown[0]!r}, which {like!r} doesn't have; it has {known}")
        if "embedding" in settings:
            self._check_choices([settings["embedding"]], get_args(Embedding), "embedding", where)
        try:
            known_methods[like].check_settings(settings)
        except ValueError as error:
            raise self._error(f"{where}: {error}") from error
        return MethodSettings(like, settings)

    def _read_names(self, table: object, where: str) -> dict[str, Any]:
        """The table with underscores in its names, as Python has them."""
        if not isinstance(table, dict):
            raise self._error(f"{where} is no table")
        settings = {key.replace("-", "_"): value for key, value in table.items()}
        if len(settings) < len(table):
            repeated = next(key for key in table if "-" in key and key.replace("-", "_") in table)
            raise self._error(f"{where} sets {repeated!r} twice, with hyphens and with underscores: keep one")
        return settings

    def _read_experiment(
        self, table: dict[str, Any], data: dict[str, DataSource], methods: dict[str, MethodSettings]
    ) -> Experiment:
        where = f"[[experiments]] {table.get('name', '')!r}"
        for key in ("name", "kind", "data", "methods"):
            if key not in table:
                raise self._error(f"{where} has no {key}")
        self._check_choices([table["kind"]], KINDS, "kind", where)
        kind = KINDS[table["kind"]]
        self._check_keys(table, {"name", "kind", "data", "methods", "seeds", "inclusion", *kind.keys}, where)
        for name in self._check_list(table, "data", where, str):
            data.setdefault(name, DataSource(name))
        self._check_choices(self._check_list(table, "methods", where, str), methods, "method", where)
        self._check_choices(table.get("inclusion", []), get_args(Inclusion), "inclusion", where)
        self._check_choices(table.get("classifiers", []), get_args(Classifier), "classifier", where)
        self._check_choices([table.get("noisy_sites", "one")], get_args(NoisySites), "choice of noisy_sites", where)
        if not isinstance(table.get("cell_type", ""), str):
            raise self._error(f"{where}: cell_type is {table['cell_type']!r}, not the name of a type")
        self._check_list(table, "seeds", where, int)
        if kind.shares:
            table = {"shares": list(kind.shares), **table}
            if any(not 0 < share < 1 for share in self._check_list(table, "shares", where, float)):
                raise self._error(f"{where}: shares are {table['shares']}: each lies between 0 and 1")
        if table["kind"] == "tuning":
            self._check_positive(table, "n_rounds", where)
            self._check_list(table, "n_epochs", where, int)
        self._check_abilities(table, methods, where)
        lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
        return Experiment(**{**table, **lists})

    def _check_abilities(self, table: dict[str, Any], methods: dict[str, MethodSettings], where: str) -> None:
        for name in table["methods"]:
            method = find_method(methods[name].like)
            if KINDS[table["kind"]].hides_labels and not method.takes_unlabelled:
                raise self._error(f"{where}: {name!r} doesn't get along with cells without a label")
            if table["kind"] in ("batch_out", "unlabelled_newcomer") and not method.takes_newcomers:
                able = ", ".join(key for key, value in list_methods().items() if value.takes_newcomers)
                raise self._error(f"{where}: {name!r} can't embed a batch that it didn't train on; {able} can")
            if table["kind"] == "expression" and not method.decodes:
                able = ", ".join(key for key, value in list_methods().items() if value.decodes)
                raise self._error(f"{where}: {name!r} yields no corrected expression; {able} do")
            if table["kind"] == "tuning" and not method.in_rounds:
                raise self._error(f"{where}: {name!r} doesn't train in rounds; 'fedscgen' and those like it do")

    def _check_keys(self, table: object, known: set[str], where: str) -> None:
        if not isinstance(table, dict):
            raise self._error(f"{where} is no table")
        unknown = sorted(set(table) - known)
        if unknown:
            raise self._error(f"{where} has an unknown key {unknown[0]!r}: known are {', '.join(sorted(known))}")

    def _check_choices(self, values: list[str], known: Any, what: str, where: str) -> None:
        for value in values:
            if value not in known:
                raise self._error(f"{where} has an unknown {what} {value!r}: known are {', '.join(known)}")

    def _check_list(self, table: dict[str, Any], key: str, where: str, of: type) -> list[Any]:
        values = table.get(key)
        if not isinstance(values, list) or not values or any(type(value) is not of for value in values):
            raise self._error(f"{where}: {key} is {values!r}, not a list of {of.__name__}")
        if len(set(values)) < len(values):
            raise self._error(f"{where}: {key} repeats a value: {values}")
        return values

    def _check_positive(self, table: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
        value = table.get(key, default)
        if type(value) is not int or value < 1:
            raise self._error(f"{where}: {key} is {value!r}, not a whole number above 0")
        return value

    def _error(self, message: str) -> SpecError:
        return SpecError(f"{self._file}: {message}")
