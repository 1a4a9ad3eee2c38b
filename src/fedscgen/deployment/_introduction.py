"""How a run begins: the coordinator says what it has in mind, and a site agrees by its name or refuses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from fedscgen._options import check_fields, read_options
from fedscgen._types import Message
from fedscgen.federation import Workflow

if TYPE_CHECKING:
    from fedscgen.deployment._config import CoordinatorConfig

INTRODUCTION = "introduction"
"""Kind of the first message: what the coordinator has in mind. A site that agrees answers with its name."""


@dataclass(frozen=True)
class Proposal:
    """What the coordinator has in mind, for a site to compare with its policy.

    Parameters
    ----------
    workflow
        What the run does.
    aggregator
        How sums over the sites are opened.
    reveals_counts
        Whether the coordinator comes to see a site's counts.
    n_sites
        Sites that shall take part.
    sites
        Names of those that may; without any, all.
    """

    workflow: Workflow
    aggregator: str
    reveals_counts: bool
    n_sites: int
    sites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, config: CoordinatorConfig) -> Self:
        """What a coordinator of this configuration has in mind."""
        return cls(config.workflow, config.secure, config.reveals_counts, config.n_sites, config.sites)

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Read an introduction.

        Raises
        ------
        ValueError
            It lacks something, or holds what this version doesn't know.
        """
        return read_options(cls, message.meta, "the coordinator's introduction")

    def to_message(self) -> Message:
        """The introduction."""
        return Message(INTRODUCTION, asdict(self))
