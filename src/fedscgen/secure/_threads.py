"""Parts of large arrays on as many threads as there are cores: numpy and the ciphers let go of the interpreter."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

N_THREADS = os.cpu_count() or 1
_Item = TypeVar("_Item")


def for_each(items: Sequence[_Item], work: Callable[[_Item], object]) -> None:
    """Do the work for every item, and raise the first item's error if there is any."""
    if len(items) < 2 or N_THREADS == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(N_THREADS, len(items))) as pool:
        list(pool.map(work, items))
