"""Secret sharing after Shamir 1979: any ``threshold`` of the shares give the secret, fewer say nothing about it."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_LENGTH = 32
SHARE_LENGTH = 66
_CHECK_LENGTH = 16
_PRIME = 2**521 - 1  # a Mersenne prime; a secret with its checksum is an element of the field


def split(secret: bytes, threshold: int, n_shares: int) -> list[bytes]:
    """Split a secret: evaluate a random polynomial of degree ``threshold - 1`` at 1 to ``n_shares``.

    Parameters
    ----------
    secret
        32 bytes.
    threshold
        Shares needed to recover it.
    n_shares
        Shares to make.

    Returns
    -------
    Shares of 66 bytes; the one at position ``i`` belongs to the point ``i + 1``.
    """
    if len(secret) != SECRET_LENGTH:
        raise ValueError(f"a secret of {len(secret)} bytes can't be shared: pass {SECRET_LENGTH}")
    if not 1 <= threshold <= n_shares:
        raise ValueError(f"threshold={threshold} of {n_shares} shares: choose 1 to {n_shares}")
    coefficients = [
        int.from_bytes(secret + _checksum(secret)),
        *(secrets.randbelow(_PRIME) for _ in range(threshold - 1)),
    ]
    return [_evaluate(coefficients, point).to_bytes(SHARE_LENGTH) for point in range(1, n_shares + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Recover the secret from as many shares as the threshold or more, by point.

    Raises
    ------
    ValueError
        The shares are too few, altered, or of different secrets. A checksum shared along with the secret tells.
    """
    value = interpolate({point: int.from_bytes(share) for point, share in shares.items()}, 0)
    if value.bit_length() <= 8 * (SECRET_LENGTH + _CHECK_LENGTH):
        content = value.to_bytes(SECRET_LENGTH + _CHECK_LENGTH)
        secret, check = content[:SECRET_LENGTH], content[SECRET_LENGTH:]
        if check == _checksum(secret):
            return secret
    raise ValueError(f"{len(shares)} shares give no secret: they are too few, altered, or of different secrets")


def interpolate(points: Mapping[int, int], at: int) -> int:
    """Evaluate at ``at`` the polynomial of least degree through ``points`` (Lagrange), in the field."""
    total = 0
    for x, y in points.items():
        numerator = denominator = 1
        for other in points:
            if other != x:
                numerator = numerator * (at - other) % _PRIME
                denominator = denominator * (x - other) % _PRIME
        total += y * numerator * pow(denominator, -1, _PRIME)
    return total % _PRIME


def _evaluate(coefficients: list[int], point: int) -> int:
    """Horner's rule; the lowest coefficient first."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % _PRIME
    return value


def _checksum(secret: bytes) -> bytes:
    return hashlib.sha256(b"fedscgen shamir 1" + secret).digest()[:_CHECK_LENGTH]
