"""Federated, privacy-preserving batch correction of single-cell RNA-seq."""

from importlib.metadata import version

from fedscgen._types import ClientUpdate, LabelStats, LatentShifts, Message, References, WireFormatError

__version__ = version("fedscgen")
__all__ = ["ClientUpdate", "LabelStats", "LatentShifts", "Message", "References", "WireFormatError", "__version__"]
