"""How sites find out whether what is published is the sum: a checksum of which the coordinator can't make another.

Beside its term, every site contributes what the term gives when it is multiplied by secret numbers, plus a secret
number of its own. Both follow from a key that all sites have and the coordinator hasn't. Products and numbers add up as
the terms do, so that every site can compare; the coordinator sees one sum of them, which is random to it: a one-time
message authentication code (Wegman & Carter 1981).

The words are laid out in rows, and each is multiplied by a secret number of its row and one of its column, in a field
of ``2**31 - 1`` elements. What a change of words adds is a polynomial of degree 2 in these numbers, and hits what its
author wishes with a probability of at most 2 in ``2**31 - 1`` (Schwartz 1980). There are three checksums with numbers
of their own: an altered sum passes with a probability of at most about ``2**-90``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen.secure._keys import derive, keystream

if TYPE_CHECKING:
    from collections.abc import Iterable

N_CHECKS = 3
_BITS = 31
_PRIME = np.uint64(2**_BITS - 1)
_N_COLUMNS, _N_ROWS = 512, 32  # of what is multiplied at a time: it stays in cache, and on one thread
_DIGITS, _DIGIT_BITS = 3, 11  # of a secret number: 512 products of 33 and 11 bits add up exactly in float64


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
        self._key = derive(key, b"fedscgen checksum 2" + json.dumps(about).encode())

    def of_term(self, words: np.ndarray, site: str) -> np.ndarray:
        """What a site contributes beside the words of its term, shape ``(3,)``."""
        checks: np.ndarray = (self._multiply(words) + self._pads([site])) % _PRIME
        return checks

    def fits(self, words: np.ndarray, checks: np.ndarray, sites: Iterable[str]) -> bool:
        """Whether ``checks``, the sum of what these sites contributed, is that of the opened ``words``."""
        return bool(np.array_equal(checks % _PRIME, (self._multiply(words) + self._pads(sites)) % _PRIME))

    def _multiply(self, words: np.ndarray) -> np.ndarray:
        """Products of words, read as whole numbers with a sign, and secret numbers, modulo the prime."""
        n_rows = -(-words.size // _N_COLUMNS)
        digits = _split_digits(self._draw(b"columns", _N_COLUMNS))  # (columns, checks * digits)
        products = np.empty((n_rows, digits.shape[1]))
        residues = np.empty((_N_ROWS, _N_COLUMNS))
        for start in range(0, n_rows, _N_ROWS):
            part = words[start * _N_COLUMNS : (start + _N_ROWS) * _N_COLUMNS]
            used = -(-part.size // _N_COLUMNS)
            residues[:used].reshape(-1)[part.size :] = 0.0
            residues.reshape(-1)[: part.size] = _to_field(part)
            np.matmul(residues[:used], digits, out=products[start : start + used])
        by_row = _join_digits(products)  # (rows, checks)
        checks: np.ndarray = (by_row * self._draw(b"rows", n_rows) % _PRIME).sum(axis=0) % _PRIME
        return checks

    def _draw(self, purpose: bytes, count: int) -> np.ndarray:
        """Secret numbers, of shape ``(count, 3)``; more of them begin with the same."""
        stream = keystream(derive(self._key, purpose))
        drawn = np.frombuffer(stream(4 * count * N_CHECKS), dtype="<u4").reshape(count, N_CHECKS)
        numbers: np.ndarray = drawn & _PRIME
        return numbers

    def _pads(self, sites: Iterable[str]) -> np.ndarray:
        pads = [np.frombuffer(derive(self._key, b"pad" + site.encode()), dtype="<u8")[:N_CHECKS] for site in sites]
        return np.array([sum(int(pad[i]) for pad in pads) % int(_PRIME) for i in range(N_CHECKS)], dtype=np.uint64)


def _to_field(words: np.ndarray) -> np.ndarray:
    """Whole numbers of at most 33 bits, and a sign, that equal the words modulo the prime, as ``2**32`` is 2 there."""
    values = words.view(np.int64)
    upper: np.ndarray = values >> 32
    upper *= 2**32 - 2
    np.subtract(values, upper, out=upper)
    return upper


def _split_digits(numbers: np.ndarray) -> np.ndarray:
    """Numbers of the field, shape ``(n, 3)``, by their digits from the lowest: shape ``(n, 3 * 3)`` in float64."""
    shifts = np.arange(_DIGITS, dtype=np.uint64) * np.uint64(_DIGIT_BITS)
    digits: np.ndarray = numbers[:, :, None] >> shifts & np.uint64(2**_DIGIT_BITS - 1)
    return digits.reshape(len(numbers), -1).astype(np.float64)


def _join_digits(products: np.ndarray) -> np.ndarray:
    """What numbers of the field give, from what their digits give: the reverse of :func:`_split_digits`."""
    digits = (products.astype(np.int64) % np.int64(_PRIME)).astype(np.uint64).reshape(len(products), N_CHECKS, _DIGITS)
    total: np.ndarray = digits[..., -1]
    for position in reversed(range(_DIGITS - 1)):
        total = (total * np.uint64(2**_DIGIT_BITS) + digits[..., position]) % _PRIME
    return total
