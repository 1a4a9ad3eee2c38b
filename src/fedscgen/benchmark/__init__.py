"""Demonstration data, integration metrics, and the report of a run."""

from fedscgen.benchmark._demo import demo_data
from fedscgen.benchmark._report import write_report
from fedscgen.benchmark.metrics import integration_metrics, metrics_table

__all__ = ["demo_data", "integration_metrics", "metrics_table", "write_report"]
