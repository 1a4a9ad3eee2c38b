"""Processes that end with another one, as Flower's don't in every case."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 1.0


def end_with(process: int, also_if: Callable[[], bool] = lambda: False) -> None:
    """End this process, from a thread of its own, as soon as another is gone or a condition holds."""

    def watch() -> None:
        while _is_alive(process) and not also_if():
            time.sleep(_WATCH_SECONDS)
        logger.warning("this process ends: Flower's has ended, or nothing has come for long")
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
