"""The model of one site."""

from fedscgen.model._model import FedSCGEN
from fedscgen.model._module import FedVAE
from fedscgen.model._save_load import CheckpointError

__all__ = ["CheckpointError", "FedSCGEN", "FedVAE"]
