"""Self-contained HTML pages about a run and about a benchmark."""

from fedscgen.benchmark.report._benchmark_report import write_benchmark_report
from fedscgen.benchmark.report._run_report import write_report

__all__ = ["write_benchmark_report", "write_report"]
