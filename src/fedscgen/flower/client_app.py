"""The ClientApp: what a SuperNode runs for every message, which it hands to the site's service.

It runs as the SuperNode's user, holds nothing of the site, and knows nothing but where the service listens. Flower
starts a process for each message, so that nothing here may import a federation, which takes seconds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from fedscgen._local_socket import ask
from fedscgen._options import check_fields, read_options
from fedscgen._types import make_refusal
from fedscgen.flower._channel import InsecureChannelError, refuse_insecure_channel
from fedscgen.flower._local_simulation import find_simulated_socket, is_simulated
from fedscgen.flower._wire import unwrap, wrap

if TYPE_CHECKING:
    from fedscgen._types import Buffer

logger = logging.getLogger(__name__)

app = ClientApp()


@dataclass(frozen=True)
class RelayConfig:
    """All that ``--node-config`` of a SuperNode holds; what the site decides is in the file of its service.

    Parameters
    ----------
    socket
        Where the site's service listens.
    allow_insecure_channel
        Take part though the connection to the coordinator isn't encrypted.
    """

    socket: Path
    allow_insecure_channel: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@app.query()
def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
    """Answer a message of the federation."""
    return FlowerMessage(wrap(_hand_on(message, context)), reply_to=message)


def _hand_on(message: FlowerMessage, context: Context) -> Buffer:
    try:
        data = unwrap(message.content)
        return ask(_find_socket(context), context.run_id, data, timeout=message.metadata.ttl)
    except InsecureChannelError as error:
        logger.error("refused: %s", error)
        return _refuse("the site doesn't take part over a channel that isn't encrypted")
    except OSError as error:
        logger.error("no answer of the site's service: %s: %s", type(error).__name__, error)
        return _refuse("no answer of the site's service: the SuperNode's log says why")
    except Exception:
        logger.exception("could not hand the message on")
        return _refuse("the message could not be handed on: the SuperNode's log says why")


def _find_socket(context: Context) -> Path:
    """Where the site's service listens; the service of a simulated site is started if there is none."""
    if is_simulated(context.node_config):
        return find_simulated_socket(context.run_config, context.node_config, context.run_id)
    config = read_options(RelayConfig, context.node_config, "--node-config")
    refuse_insecure_channel("flower-supernode", config.allow_insecure_channel)
    return config.socket


def _refuse(reason: str) -> Buffer:
    return make_refusal(reason).to_buffer()
