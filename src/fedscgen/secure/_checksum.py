"""How sites find out whether what is published is the sum: a checksum of which the coordinator can't make another.

Beside its term, every site contributes what the term gives when it is multiplied by a secret vector, plus a secret
number of its own. Both follow from a key that all sites have and the coordinator hasn't. Products and numbers add up as
the terms do, so that every site can compare; the coordinator sees one sum of them, which is random to it: a one-time
message authentication code (Wegman & Carter 1981). There are two products, in a field of ``2**31 - 1`` elements: an
altered sum passes with a probability of about ``2**-62``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.secure._keys import derive, keystream

if TYPE_CHECKING:
    from collections.abc import Iterable

N_CHECKS = 2
_BITS = 31
_PRIME = np.uint64(2**_BITS - 1)
_SHIFT = np.uint64(_BITS)
_CHUNK = 2**14


class Checksum:
    """The checksum of one sum.

    Parameters
    ----------
    key
        The sites' common key.
    about
        All that tells this sum from others, JSON-serialisable: whoever checks must have the same.
    """

    def __init__(self, key: bytes, about: Any) -> None:
        self._key = derive(key, b"fedscgen checksum 1" + json.dumps(about).encode())

    def of_term(self, words: np.ndarray, site: str) -> np.ndarray:
        """What a site contributes beside the words of its term, shape ``(2,)``."""
        checks: np.ndarray = (self._multiply(words) + self._pads([site])) % _PRIME
        return checks

    def fits(self, words: np.ndarray, checks: np.ndarray, sites: Iterable[str]) -> bool:
        """Whether ``checks``, the sum of what these sites contributed, is that of the opened ``words``."""
        return bool(np.array_equal(checks % _PRIME, (self._multiply(words) + self._pads(sites)) % _PRIME))

    def _multiply(self, words: np.ndarray) -> np.ndarray:
        """Products of words, read as whole numbers with a sign, and secret vectors, modulo the prime."""
        totals = [0] * N_CHECKS
        streams = [keystream(derive(self._key, b"vector %d" % position)) for position in range(N_CHECKS)]
        for start in range(0, words.size, _CHUNK):
            part = _to_field(words[start : start + _CHUNK])
            for position, stream in enumerate(streams):
                secret = np.frombuffer(stream(4 * part.size), dtype="<u4") & np.uint32(_PRIME)
                product = part * secret
                # a product is its upper part times 2**31, which is 1 here, plus its lower part
                totals[position] += int((product >> _SHIFT).sum()) + int((product & _PRIME).sum())
        return np.array([total % int(_PRIME) for total in totals], dtype=np.uint64)

    def _pads(self, sites: Iterable[str]) -> np.ndarray:
        pads = [np.frombuffer(derive(self._key, b"pad" + site.encode()), dtype="<u8")[:N_CHECKS] for site in sites]
        return np.array([sum(int(pad[i]) for pad in pads) % int(_PRIME) for i in range(N_CHECKS)], dtype=np.uint64)


def _to_field(words: np.ndarray) -> np.ndarray:
    """Words as whole numbers with a sign, modulo the prime: ``2**64`` is 4 there, as ``2**31`` is 1."""
    negative = (words >> np.uint64(63)) * (_PRIME - np.uint64(4))
    return _reduce(_reduce(words) + negative)


def _reduce(values: np.ndarray) -> np.ndarray:
    """Values below ``2**64`` modulo the prime, but for a multiple of it: below ``2**32``."""
    folded = (values & _PRIME) + (values >> _SHIFT)
    return (folded & _PRIME) + (folded >> _SHIFT)
