"""What a site and a coordinator configure, read from Flower's node and run configuration."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from fedscgen._types import check_choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedscgen.federation import Preset
    from fedscgen.federation._settings import GenesKind

Workflow = Literal["training", "correction"]
FlowerAggregator = Literal["masked", "plain"]
"""Aggregators for sites that talk only to a coordinator."""


@dataclass(frozen=True)
class SiteConfig:
    """What a site decides for itself, in ``flower-supernode --node-config``, with hyphens for underscores.

    Parameters
    ----------
    site
        The site's name, unique in the federation.
    data
        Path of its cells, log-normalised, an ``.h5ad`` file.
    output
        Folder for its results, one within it a run. Nobody but the site reads or writes there.
    batch_key, labels_key, layer, unlabeled_category, min_cells, accelerator
        See :class:`fedscgen.federation.Client`; ``""`` is none.
    aggregators
        Ways of summing that this site takes part in, with commas between them. ``"plain"`` shows the coordinator all
        that the site contributes.
    reveal_counts
        Let the coordinator see how many cells of each type the site has.
    min_sites
        Fewest sites in any sum that this site contributes to.
    label_salt_file
        File with a secret that all sites share and the coordinator doesn't know: cell types then travel as keyed
        hashes. ``""``: they travel by name.
    allow_insecure_channel
        Take part though the connection to the coordinator isn't encrypted.
    idle_timeout
        Seconds after which the site's process ends if nothing reaches it.
    """

    site: str
    data: str
    output: str
    batch_key: str = ""
    labels_key: str = "cell_type"
    layer: str = ""
    unlabeled_category: str = ""
    min_cells: int = 5
    accelerator: str = "auto"
    aggregators: str = "masked"
    reveal_counts: bool = False
    min_sites: int = 2
    label_salt_file: str = ""
    allow_insecure_channel: bool = False
    idle_timeout: float = 7200.0

    @classmethod
    def of(cls, node_config: Mapping[str, Any]) -> Self:
        """Read Flower's node configuration.

        Raises
        ------
        ValueError
            A key is missing, unknown or of the wrong type; the message names it.
        """
        return _read(cls, node_config, "--node-config")


@dataclass(frozen=True)
class RunConfig:
    """What the coordinator decides, in the app's ``[tool.flwr.app.config]``, with hyphens for underscores.

    Parameters
    ----------
    workflow
        ``"training"``, or ``"correction"`` of sites that come with a trained model.
    n_sites
        Sites that are waited for before it begins.
    sites
        Names of the sites that take part, with commas between them; ``""``: all that are connected.
    min_sites
        Fewest sites with which it goes on.
    secure
        ``"masked"``, or ``"plain"``, for study only.
    preset, n_rounds, n_epochs, genes, reference, seed
        See :class:`fedscgen.federation.FederationSettings`; ``0`` or ``""`` takes the preset's.
    join_timeout
        Seconds that sites are waited for before it begins.
    answer_timeout
        Seconds that a site has for one answer; one that takes longer is left out of the round.
    output
        Folder for the model, the ledger and the checkpoint.
    model
        Folder of the trained model, for corrections.
    allow_insecure_channel
        Run though the connection to the sites isn't encrypted.
    simulated_data
        File of all sites' cells for Flower's local simulation, split by ``obs["batch"]``. Sites ignore it.
    """

    workflow: Workflow = "training"
    n_sites: int = 3
    sites: str = ""
    min_sites: int = 2
    secure: FlowerAggregator = "masked"
    preset: Preset = "default"
    n_rounds: int = 0
    n_epochs: int = 0
    genes: GenesKind = "intersection"
    reference: str = ""
    seed: int = 0
    join_timeout: float = 600.0
    answer_timeout: float = 3600.0
    output: str = "fedscgen_result"
    model: str = ""
    allow_insecure_channel: bool = False
    simulated_data: str = ""

    def __post_init__(self) -> None:
        check_choice(self.workflow, Workflow, "workflow")
        check_choice(self.secure, FlowerAggregator, "aggregator over Flower")
        if not 1 <= self.min_sites <= self.n_sites:
            raise ValueError(f"min-sites={self.min_sites}: at least 1, and at most n-sites={self.n_sites}")
        if self.workflow == "correction" and not self.model:
            raise ValueError('workflow="correction" needs model="FOLDER": the model that a training has written')

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> Self:
        """Read Flower's run configuration; see :meth:`SiteConfig.of`."""
        return _read(cls, run_config, "the run configuration")


def _read(cls: type[Any], given: Mapping[str, Any], where: str) -> Any:
    known = {field.name.replace("_", "-"): field for field in fields(cls)}
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"unknown {unknown[0]!r} in {where}: there are {', '.join(known)}")
    missing = [key for key, field in known.items() if field.default is MISSING and not given.get(key)]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}: add {missing[0]}=...")
    return cls(**{known[key].name: _of_type(known[key].type, key, value, where) for key, value in given.items()})


def _of_type(kind: Any, key: str, value: Any, where: str) -> Any:
    """The value, if it is of the field's type; whole numbers are numbers with a point too."""
    expected: dict[Any, type] = {"int": int, "float": float, "bool": bool}
    wanted = expected.get(kind, str)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{key}={value!r} in {where}: expected {wanted.__name__}")
    return value


def names_in(text: str) -> list[str]:
    """The names in a list with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def salt_of(config: SiteConfig) -> str | None:
    """The secret that cell types are hashed with.

    Raises
    ------
    ValueError
        The file holds nothing.
    """
    if not config.label_salt_file:
        return None
    salt = Path(config.label_salt_file).read_text(encoding="utf-8").strip()
    if not salt:
        raise ValueError(f"label-salt-file={config.label_salt_file} is empty: put a secret of all sites there")
    return salt
