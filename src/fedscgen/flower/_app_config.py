"""What stands in the app's ``[tool.flwr.app.config]``: the coordinator's configuration, and what Flower adds to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedscgen._options import check_fields
from fedscgen.deployment import CoordinatorConfig


@dataclass(frozen=True)
class AppConfig:
    """The table of the app's file, from which it is read and to which it is written.

    Parameters
    ----------
    coordinator
        What the coordinator decides.
    simulated_data
        File (.h5ad) that a trial on one computer splits into sites by obs["batch"]. A real site ignores it.
    """

    coordinator: CoordinatorConfig
    simulated_data: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
