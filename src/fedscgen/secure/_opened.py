"""An opened sum, in the words in which the sites can check it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._types import Message
from fedscgen.secure._aggregator import OPENED_SUM, Sums
from fedscgen.secure._fixed_point import decode
from fedscgen.secure._sum_id import SumId
from fedscgen.secure._vector import Manifest, n_words, unflatten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from fedscgen.secure._checksum import Checksum


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
    keys
        Fingerprint of the public keys that were made for it.
    """

    words: np.ndarray
    manifest: Manifest
    precision: int
    sum_id: SumId
    sites: tuple[str, ...]
    keys: str

    def to_message(self) -> Message:
        """The sum as it is published."""
        meta = {
            "manifest": self.manifest,
            "precision": self.precision,
            "sites": list(self.sites),
            "keys": self.keys,
            **self.sum_id.to_meta(),
        }
        return Message(OPENED_SUM, meta, {"words": self.words})

    @classmethod
    def from_message(cls, message: Message) -> Self:
        """Read what :meth:`to_message` wrote.

        Raises
        ------
        ValueError
            It is something else.
        """
        meta = message.meta
        if "manifest" not in meta or "words" not in message.arrays:
            raise ValueError("what is published is no sum of masked words, which a site could check")
        manifest = [(str(name), [int(n) for n in shape]) for name, shape in meta["manifest"]]
        words = message.arrays["words"]
        if words.dtype != np.uint64 or words.ndim != 1 or words.size <= n_words(manifest):
            raise ValueError(f"an opened sum of {words.size} words of {words.dtype} for {n_words(manifest)} values")
        return cls(words, manifest, int(meta["precision"]), SumId.of(meta), tuple(meta["sites"]), str(meta["keys"]))

    def about(self, run: str, number: int, history: str) -> list[Any]:
        """What its checksum is bound to."""
        return describe_sum(run, number, history, self.keys, self.manifest, self.precision)

    def fits(self, checksum: Checksum) -> bool:
        """Whether the words are those that the sites' checksums are of."""
        length = n_words(self.manifest) + 1
        return checksum.fits(self.words[:length], self.words[length:], self.sites)

    def decode(self) -> Sums:
        """The sum as numbers."""
        last = n_words(self.manifest)
        weight = float(decode(self.words[last : last + 1], self.precision)[0])
        return Sums(_Decoded(unflatten(self.words, self.manifest), self.precision), weight, len(self.sites))


class _Decoded(Mapping[str, np.ndarray]):
    """Words as numbers, each array when it is read: all of a network's weights at a time would fill memory again."""

    def __init__(self, words: Mapping[str, np.ndarray], precision: int) -> None:
        self._words, self._precision = words, precision

    def __getitem__(self, name: str) -> np.ndarray:
        return decode(self._words[name], self._precision)

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)


@dataclass(frozen=True)
class CheckedSums(Sums):
    """An opened sum, with the words in which the sites can check it."""

    opened: OpenedSum = field(kw_only=True)

    def to_message(self) -> Message:
        """The sum in words, as sites read it that know each other."""
        return self.opened.to_message()


def describe_sum(run: str, number: int, history: str, keys: str, manifest: Manifest, precision: int) -> list[Any]:
    """All that tells one sum of a run from another.

    The keys are new in every sum, whatever a coordinator names it: so no checksum's secrets are used twice. The history
    is of the sums before: sites that were told different ones have different secrets.
    """
    return [run, number, history, keys, [[name, list(shape)] for name, shape in manifest], precision]


def hash_description(about: list[Any]) -> str:
    """Fingerprint of :func:`describe_sum`, to which the masks of a sum are bound.

    So the masks of sites that take part in it on other terms, such as with other fractional bits, don't cancel.
    """
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def hash_keys(channel: Mapping[str, bytes], mask: Mapping[str, bytes]) -> str:
    """Fingerprint of the sites' public keys for a sum, by site."""
    listed = [[site, channel[site].hex(), mask[site].hex()] for site in sorted(channel)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
