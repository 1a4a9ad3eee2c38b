"""A site's own random numbers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Randomness:
    """A site's own stream of random numbers, so that it trains alike beside other sites and alone on its machine."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[torch.Tensor, list[torch.Tensor]] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            if self._states is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._states[0])
                torch.cuda.set_rng_state_all(self._states[1])
            yield
            self._states = torch.get_rng_state(), torch.cuda.get_rng_state_all()
