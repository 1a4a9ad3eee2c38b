"""The public keys of a masked sum, which every site makes for it alone, and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedscgen.secure._identity import SIGNATURE_LENGTH
from fedscgen.secure._keys import KEY_LENGTH
from fedscgen.secure._vector import from_rows, to_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    import numpy as np

    from fedscgen._types import NamedArrays

OF_ALL, OF_NEXT = "public ", "next "
"""How the arrays' names begin that hold all sites' keys in a task, and a site's for the sum after it in its answer."""


@dataclass(frozen=True)
class PublicKeys:
    """Keys for channels and for masks by site, and what each site has signed of its own.

    Parameters
    ----------
    channel, mask
        By site, in one order.
    signatures
        By site; none where the sites haven't met.
    """

    channel: dict[str, bytes]
    mask: dict[str, bytes]
    signatures: dict[str, bytes]

    @property
    def sites(self) -> list[str]:
        """Whose they are."""
        return list(self.mask)

    @classmethod
    def join(cls, parts: Iterable[PublicKeys]) -> Self:
        """The keys of several sites together."""
        joined = cls({}, {}, {})
        for part in parts:
            joined = cls(joined.channel | part.channel, joined.mask | part.mask, joined.signatures | part.signatures)
        return joined

    def to_arrays(self, prefix: str = "") -> NamedArrays:
        """The keys as rows of arrays whose names begin with ``prefix``. A signature that is missing is of zeros."""
        arrays = {
            f"{prefix}channel": to_rows(list(self.channel.values()), KEY_LENGTH),
            f"{prefix}mask": to_rows(list(self.mask.values()), KEY_LENGTH),
        }
        if self.signatures:
            signatures = [self.signatures.get(site, bytes(SIGNATURE_LENGTH)) for site in self.sites]
            arrays[f"{prefix}signature"] = to_rows(signatures, SIGNATURE_LENGTH)
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], sites: Sequence[str], prefix: str = "", *, signed: bool = False
    ) -> Self:
        """Read what :meth:`to_arrays` made of the keys of these sites; signatures must be there if they are ``signed``.

        Raises
        ------
        ValueError
            An array is missing, or of another shape or dtype.
        """

        def read(name: str, length: int) -> dict[str, bytes]:
            return dict(zip(sites, from_rows(arrays, f"{prefix}{name}", len(sites), length), strict=True))

        has_signatures = signed or f"{prefix}signature" in arrays
        return cls(
            read("channel", KEY_LENGTH),
            read("mask", KEY_LENGTH),
            read("signature", SIGNATURE_LENGTH) if has_signatures else {},
        )
