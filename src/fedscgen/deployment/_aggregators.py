"""The halves of the aggregators that serve sites which talk only to a coordinator."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from fedscgen._types import check_choice
from fedscgen.secure import MaskedAggregator, MaskedContributor, PlainAggregator, PlainContributor

if TYPE_CHECKING:
    from fedscgen.federation import SitePolicy
    from fedscgen.secure import Aggregator, Contributor

logger = logging.getLogger(__name__)

_Star = Literal["masked", "plain"]


def check_aggregator(name: str) -> None:
    """Refuse an aggregator whose sites would have to talk to somebody else than the coordinator."""
    check_choice(name, _Star, "aggregator for sites that talk only to the coordinator")


def make_aggregator(name: str, *, reveals_counts: bool) -> Aggregator:
    """The coordinator's half."""
    check_aggregator(name)
    if name == "plain":
        logger.warning("secure='plain': the coordinator sees what every site contributes; for study only")
        return PlainAggregator()
    return MaskedAggregator(reveal_keys=reveals_counts)


def make_contributor(name: str, site: str, policy: SitePolicy) -> Contributor:
    """The half of a site, which holds it to its policy in every sum."""
    check_aggregator(name)
    if name == "plain":
        return PlainContributor()
    return MaskedContributor(site, reveal_keys=policy.reveal_counts, min_sites=max(2, policy.min_sites))
