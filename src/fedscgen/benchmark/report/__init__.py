"""The benchmark's page: a self-contained HTML file with its figures and numbers."""

from fedscgen.benchmark.report._report import write_benchmark_report

__all__ = ["write_benchmark_report"]
