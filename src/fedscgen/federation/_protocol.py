"""The kinds of messages between server and sites, in the order in which they are sent."""

from __future__ import annotations

DESCRIBE = "genes and cell types"
"""Kind of the message with which the coordinator proposes a plan, and asks what the site has."""

CHECK = "what a site has"
"""Kind of the question with which a coordinator finds out, before anybody trains, what stands in the way."""

TELL = "names in use"
"""Kind of the message with which each site gets to know, after that, the names that others use."""

SET_UP = "settings"

VARIABLE_GENES = "sums about genes"
BEGIN = "sums before training"
TRAIN = "model weights"
VALIDATE = "validation loss"
HOLDERS = "holders of cell types"
REFERENCES = "cell type means"
LANDMARKS = "sums near landmarks"

CORRECT = "final weights and references"
"""Kind of the last message, after which a site has its corrected cells."""

TASKS = (VARIABLE_GENES, BEGIN, TRAIN, VALIDATE, HOLDERS, REFERENCES, LANDMARKS)
"""What a site answers through its half of the aggregator."""

BEFORE, AFTER = (VARIABLE_GENES, BEGIN), (VALIDATE, HOLDERS, REFERENCES, LANDMARKS)
"""Which of these are before the rounds of training, and which after them."""

VALIDATION_LOSS = "validation_loss"
"""Name under which the loss travels beside the weights."""

SERVER = "server"
"""The coordinator's name in privacy ledgers."""
