"""The site's half of secret sharing: split a term, and seal each share for the one compute party that may hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._extras import missing_extra
from fedscgen._types import Message
from fedscgen.secure._aggregator import AggregationError, Contribution, Contributor
from fedscgen.secure._fixed_point import check_precision, encode
from fedscgen.secure._protection import Protection
from fedscgen.secure._selection import KEYS, VALUES, read_selection
from fedscgen.secure._sum_id import SumId
from fedscgen.secure._vector import Manifest, flatten

try:
    from fedscgen.secure.crypten._shares import seal_for_parties, split
except ModuleNotFoundError:
    raise missing_extra("the crypten aggregator needs", "cryptography", "crypten") from None

if TYPE_CHECKING:
    from collections.abc import Mapping

PARTIES = "parties"
"""Where a task's ``meta`` holds what a site needs to share its term."""

SUM, SELECTION = "sum", "selection"
"""What the shares are for; the two are laid out differently."""

_MAX_KEY = 2.0**53


class CryptenContributor(Contributor):
    """A site's half: splits its term into shares and seals one for each compute party. It holds no state.

    Parameters
    ----------
    site
        The site's name, as the coordinator calls it.
    """

    def __init__(self, site: str) -> None:
        self.site = site

    def contribute(self, contribution: Contribution, task: Message) -> Message:
        """Encode the term in fixed point, share it, and seal the shares.

        The answer's ``meta`` lists names and shapes, which are public. Its arrays are ciphertext, one per party.

        Raises
        ------
        AggregationError
            A value can't be encoded, or the task wasn't asked by a :class:`CryptenAggregator`.
        """
        if PARTIES not in task.meta:
            raise AggregationError(f"site {self.site!r} contributes shares only: run the task with a CryptenAggregator")
        terms = task.meta[PARTIES]
        keys = [bytes.fromhex(key) for key in terms["public_keys"]]
        if len(set(keys)) < max(2, len(keys)):
            raise AggregationError(
                f"site {self.site!r} refuses to share its term among {len(set(keys))} compute parties: at least 2"
            )
        try:
            words, manifest = _encode(contribution, terms)
        except ValueError as error:
            raise AggregationError(f"site {self.site!r} can't share its term: {error}") from error
        sealed = seal_for_parties(split(words, len(keys)), keys, SumId.of(terms), self.site)
        meta = {"protection": Protection.SECRET_SHARES, "manifest": manifest}
        arrays = {f"party {rank}": np.frombuffer(share, np.uint8) for rank, share in enumerate(sealed)}
        return Message(str(task.meta["task"]), meta, arrays)


def _encode(contribution: Contribution, terms: Mapping[str, Any]) -> tuple[np.ndarray, Manifest]:
    """Turn the term into words: weight times arrays, then the weight; for a selection keys, then values."""
    precision, max_abs = int(terms["precision"]), float(terms["max_abs"])
    check_precision(precision, max_abs, int(terms["n_sites"]))
    if terms["purpose"] == SUM:
        return flatten(contribution.arrays, contribution.weight, precision=precision, max_abs=max_abs)
    keys, values = read_selection(contribution.arrays)
    parts = [encode(keys, 0, KEYS, max_abs=_MAX_KEY), encode(values, precision, VALUES, max_abs=max_abs)]
    manifest = [(KEYS, list(keys.shape)), (VALUES, list(values.shape))]
    return np.concatenate([part.reshape(-1) for part in parts]), manifest
