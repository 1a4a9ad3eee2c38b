"""Processes that end with what they depend on, whatever they are doing."""

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


def end_after(work: Callable[[], object], *, status: int = 0) -> None:
    """End this process as soon as some work ends, which is done in a thread of its own.

    The main thread isn't asked: it may be in the middle of a computation, or wait for another process that is gone.

    Parameters
    ----------
    work
        Such as to read this process' input to its end. If it fails, the error is logged, and the process ends too.
    status
        Exit status of the process.
    """

    def run() -> None:
        try:
            work()
        except Exception:
            logger.exception("this process ends")
        os._exit(status)  # not sys.exit, which would end this thread alone

    threading.Thread(target=run, daemon=True).start()


def end_with(process: int, *, also_if: Callable[[], bool] = lambda: False) -> None:
    """End this process, with status 1, as soon as another is gone or a condition holds.

    Parameters
    ----------
    process
        Identity of the other process.
    also_if
        The condition; asked every second.
    """

    def watch() -> None:
        while _is_alive(process) and not also_if():
            time.sleep(_WATCH_SECONDS)
        logger.warning("this process ends: process %d has ended, or the condition for it holds", process)

    end_after(watch, status=1)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
