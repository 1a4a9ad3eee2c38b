"""What an end of a run keeps on disk to go on after its process has ended: what was agreed on, and the opened sums."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from fedscgen._files import write_whole
from fedscgen._types import Message
from fedscgen.federation._settings import settings_as_json
from fedscgen.model import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedscgen._types import Buffer
    from fedscgen.federation._settings import FederationSettings

_REMEDY = "choose another output, or delete it to begin anew"


class RunMemory:
    """A folder with a run's agreements and its opened sums, from which all else follows.

    Parameters
    ----------
    folder
        It is made when something is kept. ``None``: nothing is.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._n_sums = len(self._sum_paths())

    def keep(self, name: str, content: Buffer) -> None:
        """Keep an agreement under a name."""
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._folder / name, bytes(content))

    def recall(self, name: str) -> bytes | None:
        """What was kept under a name, if anything was."""
        path = None if self._folder is None else self._folder / name
        return path.read_bytes() if path is not None and path.exists() else None

    def recall_message(self, name: str) -> Message | None:
        """The message that was kept under a name.

        Raises
        ------
        CheckpointError
            The file is damaged, or something else.
        """
        content = self.recall(name)
        return None if content is None else self._read(content, name)

    def check(self, before: FederationSettings, now: FederationSettings) -> None:
        """Refuse to go on with a run of other settings.

        Raises
        ------
        CheckpointError
            The message names those that differ.
        """
        old, new = settings_as_json(before), settings_as_json(now)
        differing = [f"{name} was {old[name]!r} and is {new[name]!r}" for name in old if old[name] != new[name]]
        if differing:
            raise CheckpointError(f"{self._folder} is of another federation: {'; '.join(differing)}: {_REMEDY}")

    def add_sum(self, message: Message) -> None:
        """Keep an opened sum, after those before it."""
        self._n_sums += 1
        if self._folder is not None:  # writing it in bytes takes as long as summing it
            self.keep(f"sum-{self._n_sums:05d}", message.to_buffer())

    def sums(self) -> Iterator[Message]:
        """The opened sums, in order.

        Raises
        ------
        CheckpointError
            A file is damaged, or one is missing.
        """
        for position, path in enumerate(self._sum_paths(), start=1):
            if path.name != f"sum-{position:05d}":
                raise CheckpointError(f"{self._folder} lacks the sum of number {position}: {_REMEDY}")
            yield self._read(path.read_bytes(), path.name)

    def forget(self) -> None:
        """Delete the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _sum_paths(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob("sum-*"))

    def _read(self, content: bytes, name: str) -> Message:
        try:
            return Message.from_bytes(content)
        except ValueError as error:
            raise CheckpointError(
                f"{self._folder}: {name} is a damaged or foreign checkpoint ({error}): {_REMEDY}"
            ) from error
