"""Sums over sites: only the sum is opened, no site's term.

Words that have one meaning each in this room:

- A *site* contributes a term, the *coordinator* opens the sum, a *party* computes with secret shares of the terms.
- A *sum* is one opening, and has a name that no other has (``SumId``). A *selection* is built on it: it opens, for each
  key, the values of the site whose key is largest.
- A *stage* is one step of the protocol that leads to a sum, such as an exchange of public keys.
- A *session* is the life of one coordinator's aggregator. It counts its sums.
- A *task* is what the sites do to have a term, such as training. A *round* of training is the federation's word: this
  room has none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedscgen.secure._aggregator import (
    OPENED_SUM,
    AggregationError,
    Aggregator,
    Ask,
    Contribution,
    Contributor,
    PreparingAggregator,
    Sums,
)
from fedscgen.secure._fixed_point import error_bound
from fedscgen.secure._plain import PlainAggregator, PlainContributor
from fedscgen.secure._protection import Protection
from fedscgen.secure._registry import (
    AggregatorKind,
    aggregator_names,
    find_aggregator,
    make_aggregator,
    register_aggregator,
)

if TYPE_CHECKING:
    from fedscgen.secure._identity import Identity
    from fedscgen.secure.crypten._aggregator import CryptenAggregator
    from fedscgen.secure.crypten._contributor import CryptenContributor
    from fedscgen.secure.masked._aggregator import MaskedAggregator
    from fedscgen.secure.masked._contributor import MaskedContributor

__all__ = [
    "OPENED_SUM",
    "AggregationError",
    "Aggregator",
    "AggregatorKind",
    "Ask",
    "Contribution",
    "Contributor",
    "CryptenAggregator",
    "CryptenContributor",
    "Identity",
    "MaskedAggregator",
    "MaskedContributor",
    "PlainAggregator",
    "PlainContributor",
    "PreparingAggregator",
    "Protection",
    "Sums",
    "aggregator_names",
    "error_bound",
    "find_aggregator",
    "make_aggregator",
    "register_aggregator",
]

# they need the extras crypten and masked, without which the others work
_OF_EXTRAS = {
    "Identity": "_identity",
    "CryptenAggregator": "crypten._aggregator",
    "CryptenContributor": "crypten._contributor",
    "MaskedAggregator": "masked._aggregator",
    "MaskedContributor": "masked._contributor",
}


def __getattr__(name: str) -> Any:
    if name not in _OF_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_OF_EXTRAS[name]}"), name)
