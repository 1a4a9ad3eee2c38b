"""The ClientApp: what a SuperNode runs for every message, which it hands to the site's own process.

Flower starts a process for each message, so that nothing here may import a federation, which takes seconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from fedscgen._options import check_fields, read_options
from fedscgen.flower._channel import InsecureChannelError, refuse_insecure_channel
from fedscgen.flower._local_simulation import is_simulated, make_simulated_site
from fedscgen.flower._process import ask_site
from fedscgen.flower._wire import unwrap, wrap

logger = logging.getLogger(__name__)

app = ClientApp()


@dataclass(frozen=True)
class Doorway:
    """What of a site's configuration is needed here; the site's own process reads all of it.

    Parameters
    ----------
    output, allow_insecure_channel
        See :class:`fedscgen.deployment.SiteConfig`.
    """

    output: Path
    allow_insecure_channel: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Doorway:
        """Read these fields, and leave the others to the site's process."""
        own = {field.name for field in fields(cls)}
        given = {key: value for key, value in config.items() if key.replace("-", "_") in own}
        return read_options(cls, given, "--node-config")


@app.query()
def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
    """Answer a message of the federation."""
    return FlowerMessage(wrap(_hand_on(message, context)), reply_to=message)


def _hand_on(message: FlowerMessage, context: Context) -> bytes:
    try:
        config = _find_config(context)
        folder = Doorway.of(config).output / f"run-{context.run_id}"
        data: Any = unwrap(message.content)
        return ask_site(config, folder, data, watched=os.getppid(), timeout=message.metadata.ttl)
    except InsecureChannelError as error:
        logger.error("refused: %s", error)
        return _refuse("the site doesn't take part over a channel that isn't encrypted")
    except Exception:
        logger.exception("could not answer")
        return _refuse("the site could not answer: its log says why")


def _find_config(context: Context) -> Mapping[str, Any]:
    """The site's configuration as it is given, or of a simulated site as it is made up."""
    if is_simulated(context.node_config):
        return make_simulated_site(context.run_config, context.node_config, context.run_id)
    refuse_insecure_channel("flower-supernode", Doorway.of(context.node_config).allow_insecure_channel)
    return context.node_config


def _refuse(reason: str) -> bytes:
    from fedscgen.deployment import make_refusal  # takes seconds

    return make_refusal(reason).to_bytes()
