"""What is warned of while something runs, for a page that tells it again."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Keeper(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        _keep(self._kept, record.getMessage())


def _keep(kept: list[str], message: str) -> None:
    """Add a message that isn't there yet."""
    if message not in kept:
        kept.append(message)


@contextmanager
def keep_warnings() -> Iterator[list[str]]:
    """Each message once, in the order in which they come; they are shown as ever, too.

    They are the package's own, and of other packages those to users; that something will be given up is for developers.
    """
    kept: list[str] = []
    keeper, logger, show = _Keeper(kept), logging.getLogger("fedscgen"), warnings.showwarning

    def show_and_keep(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if category is UserWarning:
            _keep(kept, str(message))
        show(message, category, *where, **options)

    logger.addHandler(keeper)
    warnings.showwarning = show_and_keep
    try:
        yield kept
    finally:
        warnings.showwarning = show
        logger.removeHandler(keeper)
