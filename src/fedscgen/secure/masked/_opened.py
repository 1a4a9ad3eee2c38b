"""An opened sum, in the words in which the sites can check it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import OPENED_SUM, Sums
from fedscgen.secure._fixed_point import decode
from fedscgen.secure._sum_id import SumId
from fedscgen.secure._vector import Manifest, n_words, unflatten

if TYPE_CHECKING:
    from typing import Self

    from fedscgen.secure.masked._checksum import Checksum


@dataclass(frozen=True)
class OpenedSum:
    """What the coordinator publishes of a sum.

    Parameters
    ----------
    words
        The sum in fixed point, the summed weight, and the checksums if there are any: uint64.
    manifest
        Names and shapes of the arrays.
    precision
        Fractional bits.
    sum_id
        The sum's name.
    sites
        Those in the sum.
    """

    words: np.ndarray
    manifest: Manifest
    precision: int
    sum_id: SumId
    sites: tuple[str, ...]

    def to_message(self) -> Message:
        """The sum as it is published."""
        meta = {
            "manifest": self.manifest,
            "precision": self.precision,
            "sites": list(self.sites),
            **self.sum_id.to_meta(),
        }
        return Message(OPENED_SUM, meta, {"words": self.words})

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Read what :meth:`to_message` wrote."""
        meta = message.meta
        manifest = [(str(name), [int(n) for n in shape]) for name, shape in meta["manifest"]]
        words = message.arrays["words"]
        if words.dtype != np.uint64 or words.ndim != 1 or words.size <= n_words(manifest):
            raise ValueError(f"an opened sum of {words.size} words of {words.dtype} for {n_words(manifest)} values")
        return cls(words, manifest, int(meta["precision"]), SumId.of(meta), tuple(meta["sites"]))

    def about(self, run: str, number: int) -> list[Any]:
        """What its checksum is bound to."""
        return describe_sum(run, number, self.sum_id, self.manifest, self.precision)

    def fits(self, checksum: Checksum) -> bool:
        """Whether the words are those that the sites' checksums are of."""
        length = n_words(self.manifest) + 1
        return checksum.fits(self.words[:length], self.words[length:], self.sites)

    def decode(self) -> Sums:
        """The sum as numbers."""
        values = decode(self.words[: n_words(self.manifest) + 1].copy(), self.precision)
        sums = Sums(unflatten(values, self.manifest), float(values[-1]), len(self.sites))
        return sums


def describe_sum(run: str, number: int, sum_id: SumId, manifest: Manifest, precision: int) -> list[Any]:
    """All that tells one sum of a run from another."""
    return [run, number, sum_id.session, sum_id.number, [[name, list(shape)] for name, shape in manifest], precision]
