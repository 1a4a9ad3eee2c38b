"""The kinds of messages between server and sites, in the order in which they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen._types import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

DESCRIBE = "genes and cell types"

SET_UP = "settings"
"""Kind of the message from which a site that was restarted can go on; see :meth:`Client.resume`."""

BEGIN = "sums before training"
TRAIN = "model weights"
VALIDATE = "validation loss"
REFERENCES = "cell type means"
LANDMARKS = "sums near landmarks"

CORRECT = "final weights and references"
"""Kind of the last message, after which a site has its corrected cells."""

TASKS = (BEGIN, TRAIN, VALIDATE, REFERENCES, LANDMARKS)
"""What a site answers through its half of the aggregator."""

VALIDATION_LOSS = "validation_loss"
"""Name under which the loss travels beside the weights."""

SERVER = "server"
"""The coordinator's name in privacy ledgers."""


def number_round(round_: int | None, messages: Mapping[str, Message]) -> Mapping[str, Message]:
    """The messages by site with the round's number, if it is one; what goes to several sites stays one message."""
    if round_ is None:
        return messages
    numbered: dict[int, Message] = {}
    for message in messages.values():
        meta = {**message.meta, "round": round_}
        numbered.setdefault(id(message), Message(message.kind, meta, message.arrays))
    return {site: numbered[id(message)] for site, message in messages.items()}
