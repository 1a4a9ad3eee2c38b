"""The runs in which a site takes part, each with a :class:`~fedscgen.deployment.Site` of its own."""

from __future__ import annotations

import logging
import shutil
import time
from typing import TYPE_CHECKING

from fedscgen._types import Message, make_refusal
from fedscgen.deployment._introduction import INTRODUCTION
from fedscgen.deployment._site import Site
from fedscgen.federation import PolicyError

if TYPE_CHECKING:
    from fedscgen._types import Buffer
    from fedscgen.deployment._config import SiteConfig

logger = logging.getLogger(__name__)

_MOST_RUNS = 4  # each of which holds the cells and a model in memory
_MOST_FOLDERS = 1000
_LEAST_FREE = 2**30  # bytes


class SiteRuns:
    """Hands each message to the site of its run, one after the other.

    What a run needs to go on is on the disk: one that is put away, or that was there before this process, is taken up
    again with the next message.

    Parameters
    ----------
    config
        What the site has decided.
    """

    def __init__(self, config: SiteConfig) -> None:
        self._config = config
        self._sites: dict[int, Site] = {}  # the one that was heard of last comes last
        self._heard: dict[int, float] = {}

    def answer(self, run: int, data: Buffer) -> Buffer:
        """The site's answer, or a refusal that says no more than the coordinator may know; the log has the reason."""
        began = time.monotonic()
        try:
            self._check_room(len(data))
            answer = self._find(run, data).answer(data)
        except PolicyError as error:
            logger.warning("run %d: refused: %s", run, error)
            return make_refusal(str(error)).to_buffer()
        except Exception:
            logger.exception("run %d: could not answer", run)
            reason = f"could not answer: the log of site {self._config.site!r} says why"
            return make_refusal(reason).to_buffer()
        seconds = time.monotonic() - began
        logger.info("run %d: %d bytes came, %d go, after %.1f s", run, len(data), len(answer), seconds)
        self._heard[run] = time.monotonic()
        if self._sites[run].finished:
            self._put_away(run)
        return answer

    def put_away_silent(self) -> None:
        """Free the memory of runs that nothing has been heard of for ``idle_timeout``."""
        now = time.monotonic()
        for run in [run for run, heard in self._heard.items() if now - heard > self._config.idle_timeout]:
            logger.warning("run %d: nothing was heard of it for %g s", run, self._config.idle_timeout)
            self._put_away(run)

    def _find(self, run: int, data: Buffer) -> Site:
        site = self._sites.pop(run, None)
        if site is None:
            folder = self._config.output / f"run-{run}"
            if not folder.exists():
                self._check_beginning(run, data)
            if len(self._sites) == _MOST_RUNS:
                self._put_away(next(iter(self._sites)))
            site = Site(self._config, folder)
        self._sites[run] = site
        return site

    def _check_room(self, n_bytes: int) -> None:
        """Take nothing that fills the disk, whoever sends it."""
        free = shutil.disk_usage(self._config.output).free
        if free < _LEAST_FREE + n_bytes:
            logger.error("%s: %d bytes are free, and %d have to stay so", self._config.output, free, _LEAST_FREE)
            raise PolicyError("the site takes no more messages for now: its log says why")

    def _check_beginning(self, run: int, data: Buffer) -> None:
        """Make nothing for a run that does not begin as runs do."""
        kind = Message.from_bytes(data).kind
        if kind != INTRODUCTION:
            raise PolicyError(f"run {run} is unknown here, and {kind!r} does not begin one")
        n_folders = sum(1 for _ in self._config.output.glob("run-*"))
        if n_folders >= _MOST_FOLDERS:
            logger.error("%s holds %d runs: remove those that are of no use", self._config.output, n_folders)
            raise PolicyError("the site takes part in no new run: its log says why")

    def _put_away(self, run: int) -> None:
        self._heard.pop(run, None)
        self._sites.pop(run).close()
        logger.info("run %d is put away", run)
