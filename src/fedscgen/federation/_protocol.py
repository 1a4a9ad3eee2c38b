"""The kinds of messages between server and sites, in the order in which they are sent."""

DESCRIBE = "genes and cell types"
SET_UP = "settings"
COMPONENTS = "principal components"
TRAIN = "model weights"
VALIDATE = "validation loss"
REFERENCES = "cell type means"
CORRECT = "final weights and references"

TASKS = (COMPONENTS, TRAIN, VALIDATE, REFERENCES)
"""What a site answers through its half of the aggregator."""

VALIDATION_LOSS = "validation_loss"
"""Name under which the loss travels beside the weights."""

SERVER = "server"
