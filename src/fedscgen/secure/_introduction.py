"""How a site or a compute party shows a key of its own to those who know its fingerprint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fedscgen.secure._aggregator import AggregationError
from fedscgen.secure._identity import Identity, fingerprint, is_signed

if TYPE_CHECKING:
    from collections.abc import Mapping

SITE, PARTY = "site", "compute party"
"""What a key is shown for."""

_REMEDIES = {SITE: "; then let it in with fedscgen site trust"}


def introduce(purpose: str, who: str, identity: Identity, channel: bytes, *about: str | int) -> dict[str, str]:
    """Show a public identity and a public key, signed for one purpose and all that ``about`` says."""
    signature = identity.sign(claim(purpose, *about, who, channel.hex()))
    return {"identity": identity.public.hex(), "channel": channel.hex(), "signature": signature.hex()}


def check_introduction(
    purpose: str, who: str, shown: Mapping[str, str], trusted: Mapping[str, str] | None, *about: str | int
) -> tuple[bytes, bytes]:
    """The public identity and key that somebody shows.

    Parameters
    ----------
    purpose, about
        What the key must have been signed for; the purpose is also what such a one is called.
    who
        In whose name it is shown.
    shown
        What :func:`introduce` has made.
    trusted
        Fingerprints by name; ``None`` believes what is shown.

    Raises
    ------
    AggregationError
        Nobody is known by that name, somebody else speaks in it, or the key was signed for something else.
    """
    identity, channel, signature = (_read_hex(shown, name) for name in ("identity", "channel", "signature"))
    if trusted is not None:
        check_fingerprint(f"{purpose} {who!r}", who, identity, trusted)
    if not is_signed(claim(purpose, *about, who, channel.hex()), signature, identity):
        raise AggregationError(
            f"{purpose} {who!r} has not signed its key for this run: it was told something else, or it isn't its key"
        )
    return identity, channel


def check_fingerprint(called: str, name: str, identity: bytes, trusted: Mapping[str, str]) -> None:
    """Refuse an identity that isn't the one known by this name."""
    if name not in trusted:
        remedy = _REMEDIES.get(called.split()[0], "")
        raise AggregationError(
            f"{called} is unknown here: its fingerprint must come from its people, not from the coordinator{remedy}"
        )
    if trusted[name] != fingerprint(identity):
        raise AggregationError(f"somebody speaks in the name of {called}: its fingerprint is another")


def claim(purpose: str, *entries: str | int) -> bytes:
    """What is signed."""
    # JSON, as mere concatenation would let two different claims read the same
    return json.dumps([f"fedscgen {purpose} 1", *entries]).encode()


def _read_hex(shown: Mapping[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(shown[name])
    except (KeyError, TypeError, ValueError) as error:
        raise AggregationError(f"an introduction has no readable {name!r}") from error
