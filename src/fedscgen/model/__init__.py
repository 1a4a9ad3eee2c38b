"""The model of one site."""

from fedscgen.model._correction_options import CorrectionOptions
from fedscgen.model._model import FedSCGEN
from fedscgen.model._model_folder import CheckpointError, SavedModel, read_model, write_model
from fedscgen.model._module import FedVAE
from fedscgen.model._published_weights import read_published_weights

__all__ = [
    "CheckpointError",
    "CorrectionOptions",
    "FedSCGEN",
    "FedVAE",
    "SavedModel",
    "read_model",
    "read_published_weights",
    "write_model",
]
