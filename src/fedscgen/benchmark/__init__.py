"""Data, metrics, experiments and reports."""

from fedscgen.benchmark.datasets import demo_data
from fedscgen.benchmark.metrics import integration_metrics, metrics_table
from fedscgen.benchmark.report import write_report

__all__ = ["demo_data", "integration_metrics", "metrics_table", "write_report"]
