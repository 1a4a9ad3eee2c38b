"""Self-contained HTML pages: that of a run, and the building blocks that other pages share with it."""

from fedscgen.report._run_report import write_report

__all__ = ["write_report"]
