"""Who a site is: an Ed25519 key pair, whose public half others know by its fingerprint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fedscgen._extras import missing_extra

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ModuleNotFoundError as missing:
    raise missing_extra("masked aggregation needs", "cryptography", "masked") from missing

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

IDENTITY_LENGTH, SIGNATURE_LENGTH = 32, 64
_GROUP = 4  # of hexadecimal digits, for people who compare fingerprints aloud


class Identity:
    """A site's own key pair for signatures (RFC 8032).

    Parameters
    ----------
    secret
        The private half, 32 bytes. ``None``: a new one from the operating system's randomness.

    Attributes
    ----------
    public
        The public half, 32 bytes.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.generate() if secret is None else Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    @property
    def secret(self) -> bytes:
        """The private half, 32 bytes."""
        return self._key.private_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """What others know this identity by; see :func:`fingerprint`."""
        return fingerprint(self.public)

    def sign(self, content: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._key.sign(content)

    @classmethod
    def at(cls, path: Path) -> Self:
        """The identity that a file holds; a new one, which only its owner can read, if there is no such file.

        Raises
        ------
        ValueError
            The file holds something else.
        """
        if not path.exists():
            made = cls()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(made.secret.hex() + "\n", encoding="ascii")
            return made
        try:
            return cls(bytes.fromhex(path.read_text(encoding="ascii")))
        except ValueError as error:
            raise ValueError(
                f"{path} holds no identity ({error}): restore it, or delete it to make a new one"
            ) from error


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key, in 16 groups of four hexadecimal digits."""
    digits = hashlib.sha256(b"fedscgen identity 1" + public).hexdigest()
    return "-".join(digits[start : start + _GROUP] for start in range(0, len(digits), _GROUP))


def is_signed(content: bytes, signature: bytes, public: bytes) -> bool:
    """Whether the owner of ``public`` has signed this."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
