"""The primitives under pairwise masks, from ``cryptography``: key agreement, derivation, sealing, keystream."""

from __future__ import annotations

import secrets

import numpy as np

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'masked aggregation needs cryptography: pip install "fedscgen[masked]"', name=missing.name
    ) from missing

KEY_LENGTH = 32
_NONCE_LENGTH, _TAG_LENGTH = 12, 16
_CHUNK = 2**17  # words; a megabyte of keystream stays in cache until it is added
_ZEROS = bytes(8 * _CHUNK)


def sealed_length(length: int) -> int:
    """Bytes that :func:`seal` makes of ``length`` bytes."""
    return _NONCE_LENGTH + length + _TAG_LENGTH


class KeyPair:
    """An X25519 key pair (RFC 7748), by default a fresh one from the operating system's randomness."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._private = X25519PrivateKey.generate() if secret is None else X25519PrivateKey.from_private_bytes(secret)
        self.public = self._private.public_key().public_bytes_raw()

    @property
    def secret(self) -> bytes:
        """The private half, 32 bytes."""
        return self._private.private_bytes_raw()

    def agree(self, public: bytes, context: bytes) -> bytes:
        """Derive the 32-byte key shared with the owner of ``public``, for one context.

        Both public keys enter the derivation (RFC 7748, section 6.1).

        Raises
        ------
        ValueError
            ``public`` is not a usable key.
        """
        shared = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        return derive(shared, context + b"".join(sorted((self.public, public))))


def derive(secret: bytes, context: bytes) -> bytes:
    """Derive a 32-byte key for one context: HKDF with SHA-256 (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_LENGTH, salt=None, info=context).derive(secret)


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate with ChaCha20-Poly1305 (RFC 8439), bound to ``context``; a random nonce comes first."""
    nonce = secrets.token_bytes(_NONCE_LENGTH)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Decrypt what :func:`seal` made.

    Raises
    ------
    ValueError
        It was altered, or sealed with another key or for another context.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], context)
    except InvalidTag as error:
        raise ValueError("altered on its way, or meant for another site, round or purpose") from error


def add_mask(words: np.ndarray, key: bytes, *, subtract: bool = False) -> None:
    """Add to ``words``, in place and modulo 2**64, the ChaCha20 keystream of ``key``, or subtract it.

    The nonce is zero, as every key is derived for one keystream.
    """
    keystream = Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
    buffer = np.empty(min(_CHUNK, words.size), dtype="<u8")
    apply = np.subtract if subtract else np.add
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK]
        mask = buffer[: part.size]
        keystream.update_into(memoryview(_ZEROS)[: mask.nbytes], mask.view(np.uint8).data)
        apply(part, mask, out=part)
