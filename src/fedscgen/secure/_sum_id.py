"""Names of sums, to which every key, share and message of a protocol is bound."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


@dataclass(frozen=True)
class SumId:
    """Names one sum: no key outlives it, and whatever is derived from a key is bound to it.

    Parameters
    ----------
    session
        Random name of the session.
    number
        Which of the session's sums, from 1.
    """

    session: str
    number: int

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_meta` wrote."""
        return cls(str(entries["session"]), int(entries["sum"]))

    def to_meta(self) -> dict[str, Any]:
        """The name as entries for a message's ``meta``."""
        return {"session": self.session, "sum": self.number}


class Session:
    """The life of one coordinator's aggregator, in which no two sums have the same name."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(16)
        self._n_sums = 0

    def name_sum(self) -> SumId:
        """Give the next sum its name."""
        self._n_sums += 1
        return SumId(self._name, self._n_sums)
