"""What FeatureCloud shows of a run while it goes on: at most 40 characters, and a share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen._types import Message, WireFormatError
from fedscgen.federation import CHECK, CORRECT, DESCRIBE, TELL

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedscgen._types import Buffer

LONGEST = 40
"""Characters that the engine takes."""

_BEGUN, _BEFORE, _TRAINED, _FOUND, _CORRECTED = 0.02, 0.05, 0.1, 0.75, 0.95


class Progress:
    """Follows a run by what a site is asked.

    Parameters
    ----------
    show
        Takes the text, and a share from 0 to 1 that never falls.
    """

    def __init__(self, show: Callable[[str, float], None]) -> None:
        self._show = show
        self._n_rounds = 0
        self._share = 0.0

    def follow(self, data: Buffer) -> None:
        """Show what a question in the wire format is about; nothing if it is none."""
        try:
            message = Message.from_bytes(data)
        except WireFormatError:
            return
        text, share = self._tell(message)
        self._share = max(self._share, share)
        self._show(text[:LONGEST], self._share)

    def _tell(self, message: Message) -> tuple[str, float]:
        if message.kind == DESCRIBE:
            settings = message.meta.get("settings")
            self._n_rounds = int(settings.get("n_rounds", 0)) if isinstance(settings, dict) else 0
            return "agrees to the plan", _BEGUN
        if message.kind in (CHECK, TELL):
            return "tells what stands in the way", _BEGUN if message.kind == CHECK else _CORRECTED
        if message.kind == CORRECT:
            return "corrects its cells", _CORRECTED
        round_ = message.meta.get("round")
        if isinstance(round_, int) and self._n_rounds:
            share = _TRAINED + (_FOUND - _TRAINED) * min(1.0, (round_ - 1) / self._n_rounds)
            return f"trains, round {round_} of {self._n_rounds}", share
        if self._share < _TRAINED:
            return "begins", _BEFORE
        rest = _CORRECTED - max(self._share, _FOUND)
        return "finds where cells belong", max(self._share, _FOUND) + 0.05 * rest
