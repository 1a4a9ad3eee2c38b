"""Sums over sites of which only the sum is opened."""

from fedscgen.secure._aggregator import AggregationError, Aggregator, Ask, Contribution, Contributor, Sums
from fedscgen.secure._plain import PlainAggregator, PlainContributor

__all__ = [
    "AggregationError",
    "Aggregator",
    "Ask",
    "Contribution",
    "Contributor",
    "PlainAggregator",
    "PlainContributor",
    "Sums",
]
