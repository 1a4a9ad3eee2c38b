"""The app's program: what an image's ``main.py`` runs, and FeatureCloud's controller talks to."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from FeatureCloud.app.engine import app as engine
from FeatureCloud.app.engine.app import AppState, State, app_state

from fedscgen.featurecloud._frame import read_frame
from fedscgen.featurecloud._mailbox import Mailbox

if TYPE_CHECKING:
    from FeatureCloud.app.engine.app import App

logger = logging.getLogger(__name__)

GIVEN, OUTPUT, PORT = Path("/mnt/input"), Path("/mnt/output"), 5000
"""Where FeatureCloud's controller puts what a client is given, takes what it gives, and expects the app's program."""

_LOOK_SECONDS = 0.2
_SEND_SECONDS = 120.0  # for the controller to fetch what is said of an error


class Federation(AppState):
    """The app's only state: all of the run, as coordinator or not.

    Parameters
    ----------
    mailbox
        Where messages come to.
    given, output
        Folders of the client.
    """

    def __init__(self, mailbox: Mailbox, given: Path, output: Path) -> None:
        super().__init__()
        self._mailbox = mailbox
        self._given = given
        self._output = output

    def register(self) -> None:
        """Tell the engine that the run ends with this state."""
        self.register_transition("terminal")

    def run(self) -> str:
        """Take part; the engine calls it once it knows the clients."""
        self._show("begins", 0.0)
        try:
            with tempfile.TemporaryDirectory(prefix="fedscgen-") as work:
                self._take_part(Path(work))
        except Exception as error:
            logger.exception("the run has ended")
            self._wait_until_sent()
            raise _name_by_text(error) from error
        self._show("has its result", 1.0)
        return "terminal"

    def _take_part(self, work: Path) -> None:
        from fedscgen.featurecloud._client import lead, take_part  # takes seconds, and the controller asks already
        from fedscgen.featurecloud._config import Place
        from fedscgen.featurecloud._progress import Progress

        place = Place(self._given, self._output, work, self.id, len(self.clients))
        play = lead if self.is_coordinator else take_part
        play(self, self._mailbox, place, Progress(self._show))

    def _show(self, text: str, share: float) -> None:
        self.update(message=text, progress=share, state=State.RUNNING)

    def _wait_until_sent(self) -> None:
        """The engine drops what waits behind an error."""
        deadline = time.monotonic() + _SEND_SECONDS
        while self._app.data_outgoing and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)


def set_up(app: App, given: Path = GIVEN, output: Path = OUTPUT) -> None:
    """Make an engine's app this one, and fence it: whatever comes is kept unread until it is known to be bytes.

    Parameters
    ----------
    app
        The engine's, which the controller's requests reach.
    given, output
        Folders of the client.
    """
    mailbox = Mailbox()
    app.handle_incoming = mailbox.put
    engine._deserialize_incoming = _read_bytes_only
    app_state("initial", app_instance=app, mailbox=mailbox, given=given, output=output)(Federation)
    app.register()


def main(given: Path = GIVEN, output: Path = OUTPUT, port: int = PORT) -> None:
    """Serve the controller's requests, until the container is stopped.

    Parameters
    ----------
    given, output
        Folders of the client.
    port
        Where to listen, on loopback.
    """
    from bottle import Bottle
    from FeatureCloud.app.api.http_ctrl import api_server
    from FeatureCloud.app.api.http_web import web_server

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("fedscgen").setLevel(logging.INFO)
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    set_up(engine.app, given, output)
    server = Bottle()
    server.mount("/api", api_server)
    server.mount("/web", web_server)
    server.run(host="127.0.0.1", port=port, quiet=True)


def _read_bytes_only(data: Any, is_json: bool = False) -> bytes:
    """In the place of the engine's unpickling, which nothing here calls."""
    return read_frame(data)


def _name_by_text(error: Exception) -> RuntimeError:
    """An error whose class is called by its text, since that name is all that the engine shows of it."""
    from fedscgen.featurecloud._progress import LONGEST

    text = " ".join(str(error).split()) or type(error).__name__
    named: type[RuntimeError] = type(text[:LONGEST], (RuntimeError,), {})
    return named(text)
