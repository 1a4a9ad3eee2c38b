"""The ServerApp: what the SuperLink runs for the coordinator."""

from __future__ import annotations

import logging
import os

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedscgen._processes import end_with
from fedscgen.flower._channel import refuse_insecure_channel

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation, or have newcomers correct themselves, as the run configuration says."""
    end_with(os.getppid())
    _show_progress()
    # take seconds, during which the process is watched already
    from fedscgen._options import read_options
    from fedscgen.deployment import coordinate
    from fedscgen.flower._app_config import AppConfig
    from fedscgen.flower._carrier import GridCarrier

    config = read_options(AppConfig, context.run_config, "the run configuration").coordinator
    refuse_insecure_channel("flower-superlink", config.allow_insecure_channel)
    coordinate(GridCarrier(grid), config)


def _show_progress() -> None:
    """Have Flower, which keeps what this process prints, keep the package's log too."""
    package = logging.getLogger("fedscgen")
    package.setLevel(logging.INFO)
    package.addHandler(logging.StreamHandler())
