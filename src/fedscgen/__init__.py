"""Federated, privacy-preserving batch correction of single-cell RNA-seq."""

from fedscgen._types import ClientUpdate, LabelStats, LatentShifts, Message, References, WireFormatError

__version__ = "0.2.0.dev0"
__all__ = ["ClientUpdate", "LabelStats", "LatentShifts", "Message", "References", "WireFormatError", "__version__"]
