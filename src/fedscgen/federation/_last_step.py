"""The end of a simulation: a site that can't correct its cells costs the others nothing, nor what all have trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen.federation._labels import warn
from fedscgen.federation._protocol import CORRECT
from fedscgen.federation._transport import InProcessTransport, SiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedscgen._types import Message
    from fedscgen.federation._client import Client
    from fedscgen.federation._server import Server


class LenientTransport(InProcessTransport):
    """The sites of a simulation, of which one that fails at the last step counts as one that can't be reached.

    Parameters
    ----------
    clients
        The sites.

    Attributes
    ----------
    failed
        Why a site couldn't correct its cells, by its name.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        super().__init__(clients)
        self.failed: dict[str, str] = {}

    def ask(self, messages: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """Have each client answer; see :class:`~fedscgen.federation.Transport`."""
        if any(message.kind != CORRECT for message in messages.values()):
            yield from super().ask(messages)
            return
        for site, message in messages.items():
            try:
                answers = list(super().ask({site: message}))
            except SiteError as error:
                self._note(site, error)
            else:
                yield from answers
        if len(self.failed) == len(messages):
            raise SiteError(f"no site could correct its cells: {'; '.join(self.failed.values())}")

    def finish(self, server: Server, run: Callable[[], None]) -> dict[str, str]:
        """Run the server, and tell which sites have failed at the last step, when all the rest is there.

        Raises
        ------
        SiteError
            All have failed, and the message says where the trained model is; or one has before.
        """
        try:
            run()
        except SiteError as error:
            if not self.failed:
                raise
            if len(self.failed) == len(self.sites):
                raise SiteError(f"{error}. What was trained is in {self._keep(server)}") from error
        return self.failed

    def _keep(self, server: Server) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="fedscgen-")) / "model"
        model = next(iter(self._clients.values())).model
        if model is None:
            raise RuntimeError("a site without a model was asked to correct its cells")
        model.load_weights(server.weights)
        model.references = server.references
        model.save(folder)
        return folder

    def _note(self, site: str, error: SiteError) -> None:
        self.failed[site] = f"not corrected: {error}"
        warn(
            f"the cells of site {site!r} are not corrected: {error}. Training is complete: FedSCGEN.load and correct, "
            "or fedscgen correct, correct them with the trained model when that is mended"
        )
