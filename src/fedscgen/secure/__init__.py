"""Sums over sites of which only the sum is opened."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedscgen.secure._aggregator import AggregationError, Aggregator, Ask, Contribution, Contributor, Sums
from fedscgen.secure._make import AggregatorName, make_aggregator
from fedscgen.secure._plain import PlainAggregator, PlainContributor

if TYPE_CHECKING:
    from fedscgen.secure.crypten._aggregator import CryptenAggregator, CryptenContributor
    from fedscgen.secure.masked._aggregator import MaskedAggregator
    from fedscgen.secure.masked._contributor import MaskedContributor

__all__ = [
    "AggregationError",
    "Aggregator",
    "AggregatorName",
    "Ask",
    "Contribution",
    "Contributor",
    "CryptenAggregator",
    "CryptenContributor",
    "MaskedAggregator",
    "MaskedContributor",
    "PlainAggregator",
    "PlainContributor",
    "Sums",
    "make_aggregator",
]

# they need the extras crypten and masked, without which the others work
_OF_EXTRAS = {
    "CryptenAggregator": "crypten._aggregator",
    "CryptenContributor": "crypten._aggregator",
    "MaskedAggregator": "masked._aggregator",
    "MaskedContributor": "masked._contributor",
}


def __getattr__(name: str) -> Any:
    if name not in _OF_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_OF_EXTRAS[name]}"), name)
