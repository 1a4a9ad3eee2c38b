"""Cells to integrate: published data sets by name, files of your own, a demonstration, and simulated sites."""

from fedscgen.datasets._demo import demo_counts, demo_data
from fedscgen.datasets._download import fetch_dataset
from fedscgen.datasets._inclusion import Inclusion, apply_inclusion
from fedscgen.datasets._load import load_dataset, load_file
from fedscgen.datasets._prepare import prepare
from fedscgen.datasets._published import DATASETS, PublishedDataset
from fedscgen.datasets._simulator import simulate_sites

__all__ = [
    "DATASETS",
    "Inclusion",
    "PublishedDataset",
    "apply_inclusion",
    "demo_counts",
    "demo_data",
    "fetch_dataset",
    "load_dataset",
    "load_file",
    "prepare",
    "simulate_sites",
]
