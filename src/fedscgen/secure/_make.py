"""Aggregators by name, for callers that need none of their settings."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

from fedscgen._types import check_choice
from fedscgen.secure._aggregator import Aggregator
from fedscgen.secure._plain import PlainAggregator

AggregatorName = Literal["plain", "crypten", "masked"]
"""Names that :func:`make_aggregator` knows."""


def make_aggregator(secure: str | Aggregator, n_sites: int) -> Aggregator:
    """An aggregator with its default settings, or the one that is given.

    Parameters
    ----------
    secure
        ``"plain"`` (the coordinator sees every update), ``"crypten"`` (secret shares among compute parties),
        ``"masked"`` (pairwise masks, over a coordinator alone), or an aggregator of your own settings.
    n_sites
        Sites that will take part.

    Raises
    ------
    ModuleNotFoundError
        The extra isn't installed; the message names the pip command.
    ValueError
        Unknown name.
    """
    if isinstance(secure, Aggregator):
        return secure
    check_choice(secure, AggregatorName, "aggregator")
    if secure == "plain":
        return PlainAggregator()
    # imported here, as either needs an extra
    if secure == "masked":
        return import_module("fedscgen.secure.masked._aggregator").MaskedAggregator()
    return import_module("fedscgen.secure.crypten._aggregator").CryptenAggregator(n_sites)
