"""The ClientApp: what a SuperNode runs for every message, which it hands to the site's own process."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from fedscgen.flower._channel import InsecureChannelError, refuse_insecure_channel
from fedscgen.flower._config import RunConfig, SiteConfig
from fedscgen.flower._local_simulation import is_simulated, simulated_site
from fedscgen.flower._process import ask_site
from fedscgen.flower._wire import refusal, unwrap, wrap

logger = logging.getLogger(__name__)

app = ClientApp()


@app.query()
def answer(message: FlowerMessage, context: Context) -> FlowerMessage:
    """Answer a message of the federation."""
    return FlowerMessage(wrap(_answered(message, context)), reply_to=message)


def _config(context: Context) -> SiteConfig:
    if is_simulated(context.node_config):
        return simulated_site(RunConfig.of(context.run_config), context.node_config, context.run_id)
    config = SiteConfig.of(context.node_config)
    refuse_insecure_channel("flower-supernode", config.allow_insecure_channel)
    return config


def _answered(message: FlowerMessage, context: Context) -> bytes:
    try:
        config = _config(context)
        folder = Path(config.output) / f"run-{context.run_id}"
        data: Any = unwrap(message.content)
        return ask_site(config, folder, data, watched=os.getppid(), timeout=message.metadata.ttl)
    except InsecureChannelError as error:
        logger.error("refused: %s", error)
        return refusal("the site doesn't take part over a channel that isn't encrypted").to_bytes()
    except Exception:
        logger.exception("could not answer")
        return refusal("the site could not answer: its log says why").to_bytes()
