"""The primitives under pairwise masks, from ``cryptography``: key agreement, derivation, sealing, keystream."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from fedscgen._extras import missing_extra
from fedscgen.secure._threads import N_THREADS, for_each

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ModuleNotFoundError as missing:
    raise missing_extra("masked aggregation needs", "cryptography", "masked") from missing

KEY_LENGTH = 32
_NONCE_LENGTH, _TAG_LENGTH = 12, 16
_CHUNK = 2**15  # words; their keystream stays in cache until it is added
_WORDS_PER_BLOCK = 8
_ZEROS = bytes(8 * _CHUNK)


def seal_length(length: int) -> int:
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


def seal(key: bytes, plain: bytes | memoryview, context: bytes, *, after: bytes = b"") -> bytes:
    """Encrypt and authenticate with ChaCha20-Poly1305 (RFC 8439), bound to ``context``.

    The result begins with ``after`` and a random nonce.
    """
    nonce = secrets.token_bytes(_NONCE_LENGTH)
    return b"".join([after, nonce, ChaCha20Poly1305(key).encrypt(nonce, plain, context)])


def unseal(key: bytes, sealed: bytes | memoryview, context: bytes) -> bytes:
    """Decrypt what :func:`seal` made.

    Raises
    ------
    ValueError
        It was altered, or sealed with another key or for another context.
    """
    try:
        view = memoryview(sealed)
        return ChaCha20Poly1305(key).decrypt(view[:_NONCE_LENGTH], view[_NONCE_LENGTH:], context)
    except (InvalidTag, ValueError) as error:  # the latter of what is too short to be sealed
        raise ValueError("altered on its way, or meant for another site, sum or purpose") from error


def keystream(key: bytes) -> Callable[[int], bytes]:
    """The next bytes of the ChaCha20 keystream of ``key``, as many as are asked for; one key serves one stream."""
    stream = Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
    return lambda length: stream.update(bytes(length))


def add_mask(words: np.ndarray, key: bytes, *, subtract: bool = False) -> None:
    """Add to ``words``, in place and modulo 2**64, the ChaCha20 keystream of ``key``, or subtract it.

    The nonce is zero, as every key is derived for one keystream.
    """
    add_masks(words, [(key, subtract)])


def add_masks(words: np.ndarray, masks: Sequence[tuple[bytes, bool]]) -> None:
    """Do as :func:`add_mask` for several keys, each with whether to subtract, on as many threads as there are cores.

    Each thread has a part of the words, and begins the keystreams at the block where its part begins.
    """
    n_chunks = -(-words.size // _CHUNK)
    per_part = max(1, -(-n_chunks // N_THREADS)) * _CHUNK
    for_each(
        range(0, words.size, per_part),
        lambda start: _add_keystreams(words[start : start + per_part], masks, start // _WORDS_PER_BLOCK),
    )


def _add_keystreams(words: np.ndarray, masks: Sequence[tuple[bytes, bool]], first_block: int) -> None:
    # the first four bytes of what cryptography calls the nonce count blocks (RFC 8439, section 2.3)
    nonce = first_block.to_bytes(4, "little") + bytes(12)
    streams = [(Cipher(ChaCha20(key, nonce=nonce), mode=None).encryptor(), subtract) for key, subtract in masks]
    buffer = np.empty(min(_CHUNK, words.size), dtype="<u8")
    for start in range(0, words.size, _CHUNK):
        part = words[start : start + _CHUNK]
        mask = buffer[: part.size]
        for keystream, subtract in streams:
            keystream.update_into(memoryview(_ZEROS)[: mask.nbytes], mask.view(np.uint8).data)
            (np.subtract if subtract else np.add)(part, mask, out=part)
