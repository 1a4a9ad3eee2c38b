"""What a client does, whichever it is: ``config.yml`` as the published app reads it, with two sections of our own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fedscgen._options import Preset, read_options
from fedscgen._types import check_choice
from fedscgen.deployment import CoordinatorConfig, SiteConfig
from fedscgen.featurecloud._published import Data, EarlyStopping, Model, Top, Train
from fedscgen.featurecloud._yaml import find_config, read_section
from fedscgen.federation import CorrectionOptions, FederationSettings, InitialModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

APP = "fedscgen"
_SECTIONS = ("data", "model", "train", "federation", "site")
_ELSEWHERE = {
    "data": "data.adata", "labels_key": "data.cell_key", "batch_key": "data.batch_key", "site": "site.name",
    "workflow": "workflow", "trained_model": "model.init_model", "init_model": "model.init_model",
    "n_rounds": "n_rounds", "n_epochs": "train.n_epochs", "lr": "train.lr", "batch_size": "train.batch_size",
}  # fmt: skip
_FIXED = {
    "output", "socket", "socket_group", "identity", "trusted_sites", "allow_unknown_sites", "expression", "n_sites",
    "sites", "allow_insecure_channel",
}  # fmt: skip
_IDENTITY, _TRUSTED = "identity.key", "trusted_sites.toml"


@dataclass(frozen=True)
class Place:
    """Where a client is.

    Parameters
    ----------
    given
        Folder with its configuration and its cells, which is only read.
    output
        Folder that its user gets.
    work
        Folder for what nobody gets, such as its key.
    client
        Its name on FeatureCloud.
    n_clients
        How many take part, itself among them.
    """

    given: Path
    output: Path
    work: Path
    client: str
    n_clients: int


@dataclass(frozen=True)
class AppConfig:
    """What a client has been told.

    Parameters
    ----------
    path
        The file.
    coordinator
        What it decides if it is the coordinator.
    site
        What it decides as a site.
    """

    path: Path
    coordinator: CoordinatorConfig
    site: SiteConfig


def read_config(place: Place) -> AppConfig:
    """Read and check all that a client is told, before anything is computed or sent.

    Parameters
    ----------
    place
        Where the client is.

    Raises
    ------
    FileNotFoundError
        There is no such file, or no such cells or model.
    ValueError
        A key is unknown, missing or there twice, or a value is of the wrong type or out of range; the message names it.
    """
    path = find_config(place.given)
    where = f"{path.name}: {APP}"
    left = read_section(path, APP)
    sections = {name: _take_table(left, name, where) for name in _SECTIONS}
    stopping = sections["train"].pop("early_stopping", None)
    top = read_options(Top, left, where)
    data = read_options(Data, sections["data"], f"{where}.data")
    model = read_options(Model, sections["model"], f"{where}.model")
    train = read_options(Train, sections["train"], f"{where}.train").as_settings(top.n_rounds)
    of_coordinator, of_site = (_own_section(sections[name], f"{where}.{name}") for name in ("federation", "site"))
    preset: Preset = of_coordinator.pop("settings", "default")
    check_choice(preset, Preset, f"{where}.federation.settings")
    begin = _find_model(place, model, top)
    coordinator = _coordinator(place, preset, train | of_coordinator, model, begin, f"{where}.federation")
    if stopping is not None:
        coordinator = _stop_early(coordinator, stopping, f"{where}.train.early_stopping")
    return AppConfig(path, coordinator, _site(place, preset, of_site, data, begin, f"{where}.site"))


def _take_table(left: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    table = left.pop(name, None)
    if table is not None and not isinstance(table, dict):
        raise ValueError(f"{where}.{name}={table!r}: expected keys below it, indented")
    return {str(key).replace("-", "_"): value for key, value in (table or {}).items()}


def _own_section(table: dict[str, Any], where: str) -> dict[str, Any]:
    """A section of our own, without what stands in another place or follows from FeatureCloud."""
    for name in table:
        if name in _ELSEWHERE:
            raise ValueError(f"{where}: {name} has its place in {APP}.{_ELSEWHERE[name]}: write it there")
        if name in _FIXED:
            raise ValueError(f"{where}: {name} is the app's own on FeatureCloud: remove it")
    return table


def _find_model(place: Place, model: Model, top: Top) -> dict[str, Any]:
    """The workflow and, where one is named, the model that it begins with."""
    path = None if model.init_model is None else place.given / model.init_model
    if path is not None and not path.exists():
        named = f"{APP}.model.init_model={model.init_model!r}"
        raise FileNotFoundError(f"{named}: {place.given} holds no such file or folder")
    if top.workflow != "correction":
        return {"workflow": {"train": "training"}.get(top.workflow, top.workflow), "init_model": path}
    if path is None:
        raise ValueError(
            f"{APP}.workflow='correction' needs {APP}.model.init_model: the folder trained_model that a training has "
            "written, among this client's files"
        )
    if (path / "model_params.pt").exists():
        raise ValueError(
            f"{APP}.model.init_model={model.init_model!r} is the published app's, which says nothing of where cells "
            f"belong: begin with it by {APP}.workflow='train' and n_rounds: 0"
        )
    return {"workflow": "correction", "trained_model": path}


def _coordinator(
    place: Place, preset: Preset, given: dict[str, Any], model: Model, begin: Mapping[str, Any], where: str
) -> CoordinatorConfig:
    settings = FederationSettings.from_preset(preset, seed=0)
    network = {**settings.model, **model.of_network, **given.pop("model", {})}
    values = {**vars(settings), **begin, **given, "model": network, "n_sites": place.n_clients}
    return read_options(CoordinatorConfig, {"output": place.output / APP / "coordinator", **values}, where)


def _stop_early(config: CoordinatorConfig, table: Any, where: str) -> CoordinatorConfig:
    if not isinstance(table, dict):
        raise ValueError(f"{where}={table!r}: expected keys below it, indented")
    settings = config.settings
    patience = read_options(EarlyStopping, table, where).find_patience(settings.n_epochs, settings.n_rounds)
    return replace(config, settings=replace(settings, early_stopping_patience=patience))


def _site(
    place: Place, preset: Preset, given: dict[str, Any], data: Data, begin: Mapping[str, Any], where: str
) -> SiteConfig:
    cells, trusted, key = (place.given / name for name in (data.adata, _TRUSTED, _IDENTITY))
    if not cells.is_file():
        there = ", ".join(sorted(path.name for path in place.given.glob("*.h5ad"))) or "none"
        raise FileNotFoundError(
            f"{APP}.data.adata={data.adata!r}: {place.given} holds no such file; of .h5ad it has {there}"
        )
    beside = {name: given.pop(name, None) for name in ("label_salt_file", "label_map")}
    values = {
        **vars(CorrectionOptions.from_preset(preset)),
        "aggregators": "masked",
        "site": given.pop("name", place.client),
        "init_models": _own_models(begin),
        **given,
        **{name: None if file is None else place.given / str(file) for name, file in beside.items()},
        "data": cells,
        "output": place.work,
        "batch_key": data.batch_key,
        "labels_key": data.cell_key,
        "identity": key if key.exists() else place.work / _IDENTITY,
        "trusted_sites": trusted,
        "allow_unknown_sites": not trusted.exists(),
    }
    return read_options(SiteConfig, values, where)


def _own_models(begin: Mapping[str, Any]) -> tuple[str, ...]:
    """What training may begin with: the weights that this client has itself."""
    path = begin.get("init_model")
    return () if path is None else (InitialModel.read(path).sha256,)
