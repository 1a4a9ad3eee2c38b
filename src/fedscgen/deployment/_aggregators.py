"""The halves of the aggregators that serve sites which talk only to a coordinator."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from fedscgen import secure
from fedscgen.secure import aggregator_names, find_aggregator

if TYPE_CHECKING:
    from fedscgen.deployment._config import SiteConfig
    from fedscgen.secure import Aggregator, AggregatorKind, Contributor

logger = logging.getLogger(__name__)


def find_star_aggregator(name: str) -> AggregatorKind:
    """What a name stands for, of an aggregator whose sites talk to nobody but the coordinator.

    Raises
    ------
    ValueError
        There is none of that name, or it needs more than that; the message lists those that don't.
    """
    with suppress(ValueError):  # of an unknown name: what is said below fits better
        kind = find_aggregator(name)
        if kind.star:
            return kind
    # the names come last, as they need every plug-in: one that is broken must not stop the other aggregators
    choices = ", ".join(repr(known) for known in aggregator_names() if find_aggregator(known).star)
    raise ValueError(
        f"unknown aggregator for sites that talk only to the coordinator {name!r}: choose one of {choices}"
    )


def make_aggregator(name: str, n_sites: int, *, reveals_counts: bool) -> Aggregator:
    """The coordinator's half."""
    if find_star_aggregator(name).shows_terms:
        logger.warning("secure=%r: the coordinator sees what every site contributes; for study only", name)
    return secure.make_aggregator(name, n_sites, reveal_keys=reveals_counts)


def make_contributor(name: str, config: SiteConfig) -> Contributor:
    """The half of a site, which holds it to its policy in every sum and knows the other sites."""
    policy = config.policy
    made = find_star_aggregator(name).contributor(
        config.site, reveal_keys=policy.reveal_counts, min_sites=policy.min_sites or 1
    )
    made.identify(config.output / config.identity, config.read_trusted_sites())
    return made
