"""Real numbers in the ring of 64-bit integers, where sums of masked or shared values are exact.

A value becomes the nearest multiple of ``2**-precision``, held in two's complement. What may enter is declared before:
``max_abs`` bounds every site's weight times value. With this bound the sum over the sites can't wrap around.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.secure._aggregator import AggregationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAX_ABS = 2.0**32
"""Usual bound on every site's weight times value."""

MIN_PRECISION, MAX_PRECISION = 16, 32
_LARGEST_WORD = 2**63 - 1
_CHUNK = 2**15  # words


def precision_for(max_abs: float, n_sites: int, declared: int | None = None) -> int:
    """Most fractional bits, 16 to 32, with which a sum over ``n_sites`` of values up to ``max_abs`` can't wrap.

    Bits that are ``declared`` are checked instead.

    Raises
    ------
    ValueError
        Not even 16 bits fit, or the declared ones don't; the message says how large ``max_abs`` may be.
    """
    if declared is not None:
        check_precision(declared, max_abs, n_sites)
        return declared
    _check_range(max_abs, n_sites)
    for precision in range(MAX_PRECISION, MIN_PRECISION - 1, -1):
        if _fits(precision, max_abs, n_sites):
            return precision
    raise ValueError(_explain_range(MIN_PRECISION, max_abs, n_sites))


def check_precision(precision: int, max_abs: float, n_sites: int) -> None:
    """Refuse a precision outside 16 to 32 bits, or one with which the sum over ``n_sites`` could wrap.

    Raises
    ------
    ValueError
        It names the value and the remedy.
    """
    _check_range(max_abs, n_sites)
    if not MIN_PRECISION <= precision <= MAX_PRECISION:
        raise ValueError(f"precision={precision} bits: choose {MIN_PRECISION} to {MAX_PRECISION}, or None to derive it")
    if not _fits(precision, max_abs, n_sites):
        raise ValueError(_explain_range(precision, max_abs, n_sites))


def error_bound(precision: int, n_sites: int) -> float:
    """How far an opened sum may lie from the sum of the sites' float64 terms: ``n_sites * 2**-(precision + 1)``.

    Each term is rounded once, by half a unit at most, and the ring adds exactly. A sum beyond ``2**(53 - precision)``
    has more bits than the float64 which holds it, and is rounded by a further ``2**-53`` of itself, as in the clear.

    Parameters
    ----------
    precision
        Fractional bits, such as ``MaskedAggregator.precision_for`` gives.
    n_sites
        Sites in the sum.
    """
    return n_sites * 2.0 ** -(precision + 1)


def encode(
    array: ArrayLike,
    precision: int,
    name: str,
    *,
    max_abs: float,
    weight: float = 1.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Encode ``weight * array``, multiplied in float64.

    Parameters
    ----------
    array
        Real numbers of any shape.
    precision
        Fractional bits.
    name
        What an error calls the array.
    max_abs
        Declared bound on ``abs(weight * array)``.
    weight
        What every value is multiplied by.
    out
        Where to write, contiguous, of the array's shape and dtype uint64; a new array if not given.

    Returns
    -------
    Words of dtype uint64, of the array's shape.

    Raises
    ------
    AggregationError
        A value is NaN, infinite or beyond ``max_abs``; the message names it and the remedy.
    """
    array = np.asarray(array)
    words = np.empty(array.shape, dtype=np.uint64) if out is None else out
    values, flat = array.reshape(-1), words.reshape(-1)
    scale, limit = weight * 2.0**precision, max_abs * 2.0**precision
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            # the words' own memory holds the floats until they are rounded
            scaled = part.view(np.float64)
            np.multiply(values[start : start + _CHUNK], scale, out=scaled, dtype=np.float64)
            if not (-limit <= scaled.min() and scaled.max() <= limit):  # NaN fails both comparisons
                raise AggregationError(_refusal(array, scale, limit, name, weight=weight, max_abs=max_abs))
            part.view(np.int64)[...] = np.rint(scaled, out=scaled)
    return words


def decode(words: np.ndarray, precision: int) -> np.ndarray:
    """Read words as two's complement multiples of ``2**-precision``, in float64."""
    values: np.ndarray = np.multiply(words.view(np.int64), 2.0**-precision)
    return values


def _check_range(max_abs: float, n_sites: int) -> None:
    if not (math.isfinite(max_abs) and max_abs > 0):
        raise ValueError(f"max_abs={max_abs!r}: declare a positive, finite bound on every site's weight times value")
    if n_sites < 1:
        raise ValueError(f"n_sites={n_sites}: a sum needs at least one site")


def _fits(precision: int, max_abs: float, n_sites: int) -> bool:
    # integers, as float64 can't tell 2**63 from 2**63 - 1; one more for the rounding of each term
    return n_sites * (int(max_abs * 2**precision) + 1) <= _LARGEST_WORD


def _explain_range(precision: int, max_abs: float, n_sites: int) -> str:
    largest = 2.0 ** (63 - precision) / n_sites
    return (
        f"max_abs={max_abs:g} with {n_sites} sites and {precision} fractional bits doesn't fit 64-bit words: "
        f"declare a max_abs below {largest:.3g}, or fewer bits (at least {MIN_PRECISION})"
    )


def _refusal(array: np.ndarray, scale: float, limit: float, name: str, *, weight: float, max_abs: float) -> str:
    position = int(np.flatnonzero(~(np.abs(np.multiply(array, scale, dtype=np.float64)) <= limit))[0])
    value, place = array.reshape(-1)[position], list(map(int, np.unravel_index(position, array.shape)))
    where = f"{name}{place}" if place else name
    if not np.isfinite(value) or not np.isfinite(weight):
        return f"{where} is {value} (weight {weight:g}): only finite values can be summed; check how it was computed"
    return (
        f"{where} is {value:g}, which times the weight {weight:g} exceeds max_abs={max_abs:g}: "
        "declare a larger max_abs for the aggregator, or check how it was computed"
    )
