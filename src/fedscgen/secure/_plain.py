"""No protection: the coordinator sees what every site contributes. For study and testing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen._types import Message
from fedscgen.aggregation import weighted_sum
from fedscgen.secure._aggregator import AggregationError, Contribution, Contributor, Sums
from fedscgen.secure._protection import Protection
from fedscgen.secure._selection import KEYS, VALUES, read_selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fedscgen._types import NamedArrays
    from fedscgen.secure._aggregator import Ask

# no parameter or buffer of a torch module can have a name that ends with a dot
_WEIGHT = "weight."


class PlainContributor(Contributor):
    """Sends the site's arrays and weight as they are."""

    def __init__(self) -> None:
        """It holds no state."""

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Put the arrays and the weight on the wire in the clear.

        Raises
        ------
        AggregationError
            An array has the name that the weight has on the wire.
        """
        if _WEIGHT in contribution.arrays:
            raise AggregationError(
                f"an array is called {_WEIGHT!r}, as the sum's own weight: choose another name for it"
            )
        arrays = {**contribution.arrays, _WEIGHT: np.asarray(contribution.weight, dtype=np.float64)}
        return Message(str(task.meta["task"]), {"protection": Protection.NONE}, arrays)


class PlainAggregator:
    """Sums in the clear at the coordinator, over any number of sites."""

    name = "plain"
    selects = True

    def __enter__(self) -> PlainAggregator:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def contributor(self, site: str) -> PlainContributor:
        """A site's half; it holds no state."""
        return PlainContributor()

    def sum(
        self, ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool = False, may_shrink: bool = False
    ) -> Sums:
        """Sum the answers in float64, as they come; see :class:`~fedscgen.secure.Aggregator`."""
        weights: list[float] = []

        def terms() -> Iterator[tuple[NamedArrays, float]]:
            for _, arrays in _collect(ask, sites, task, require_all=require_all):
                weights.append(float(arrays.pop(_WEIGHT)))
                yield arrays, weights[-1]

        return Sums(weighted_sum(terms()), sum(weights), len(weights))

    def select(self, ask: Ask, sites: Sequence[str], task: Message) -> Sums:
        """Choose in the clear; see :class:`~fedscgen.secure.Aggregator`."""
        answers = dict(_collect(ask, sites, task, require_all=True))
        contributed = [_read_selection(site, answers[site]) for site in sites]
        keys, values = (np.stack(arrays) for arrays in zip(*contributed, strict=True))  # (S, K) and (S, K, D)
        site, key = keys.argmax(axis=0), np.arange(keys.shape[1])  # the first of equals
        return Sums({KEYS: keys[site, key], VALUES: values[site, key]}, len(sites), len(sites))


def _collect(ask: Ask, sites: Sequence[str], task: Message, *, require_all: bool) -> Iterator[tuple[str, NamedArrays]]:
    """Ask every site and give what each answers, as it comes; refuse those that don't fit the first.

    The end is an error if nobody has answered, or somebody hasn't who should.
    """
    missing, expected = list(sites), None
    for site, answer in ask(dict.fromkeys(sites, task)):
        expected = answer.arrays if expected is None else expected
        _check_term(site, answer.arrays, expected)
        missing.remove(site)
        yield site, dict(answer.arrays)
    if missing and (require_all or len(missing) == len(sites)):
        raise AggregationError(
            f"no answer to the task {task.meta['task']!r} from {', '.join(missing)}: nothing was opened"
        )


def _check_term(site: str, arrays: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Refuse what has other names or shapes than the first site's arrays, or isn't finite."""
    alike = "nothing was opened; run every site with the same settings and names"
    if arrays.keys() != expected.keys():
        differing = ", ".join(sorted(arrays.keys() ^ expected.keys())[:5])
        raise AggregationError(
            f"site {site!r}: names differ from the first site's: {differing} on one side only: {alike}"
        )
    if _WEIGHT not in arrays:
        raise AggregationError(
            f"site {site!r}: no weight was sent: nothing was opened; give every site its contributor"
        )
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            raise AggregationError(
                f"site {site!r}: {name} has shape {array.shape}, expected {expected[name].shape}: {alike}"
            )
        if not np.isfinite(array).all():
            raise AggregationError(
                f"site {site!r}: {name} holds NaN or inf: nothing was opened; find at the site where it comes from"
            )


def _read_selection(site: str, arrays: NamedArrays) -> tuple[np.ndarray, np.ndarray]:
    try:
        return read_selection(arrays)
    except ValueError as error:
        raise AggregationError(f"site {site!r}: {error}; nothing was opened") from error
