"""What the controller delivers, until it is taken."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Letter(NamedTuple):
    """Bytes from a client, as the controller names it."""

    client: str
    memo: str
    data: bytes


class Mailbox:
    """Stands in for the engine's own store, which waits without end and unpickles what anybody sends.

    Attributes
    ----------
    accepts
        Whether a letter is kept; asked when it comes. All are until somebody says which.
    """

    def __init__(self) -> None:
        self.accepts: Callable[[Letter], bool] = lambda letter: True
        self._letters: deque[Letter] = deque()
        self._arrival = threading.Condition()

    def put(self, data: bytes, client: str, memo: str | None = None) -> None:
        """Keep a letter, if it is wanted; has the parameters of the engine's ``handle_incoming``."""
        letter = Letter(client, str(memo), data)
        with self._arrival:
            if not self.accepts(letter):
                logger.warning("%r from client %r is not read: late, sent twice, or not asked for", memo, client)
                return
            self._letters.append(letter)
            self._arrival.notify()

    def take(self, timeout: float) -> Letter | None:
        """The next letter, or none if none comes within so many seconds."""
        with self._arrival:
            self._arrival.wait_for(lambda: self._letters, max(0.0, timeout))
            return self._letters.popleft() if self._letters else None
