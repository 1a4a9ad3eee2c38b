"""Data to benchmark with: the published ones by name, files of your own, and sites that are simulated."""

from fedscgen.benchmark.datasets._demo import demo_data

__all__ = ["demo_data"]
