"""Federated, privacy-preserving batch correction of single-cell RNA-seq."""

from importlib.metadata import version

__version__ = version("fedscgen")
__all__ = ["__version__"]
