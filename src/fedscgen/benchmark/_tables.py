"""The files of a results folder that a run writes and its report reads: their names and their columns."""

from __future__ import annotations

from collections.abc import Mapping

PLAN = "plan.json"
BASELINE = "scgen"
"""The method that others are compared with."""

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

TEST_KEYS = ("experiment", "dataset", "scenario", "metric")
"""Columns by which tests are told apart, besides the method."""

SUMMARY_KEYS = ("experiment", "metric", "method", "dataset", "scenario", "condition")
"""Columns by which means over seeds are told apart."""

_RUN = ("experiment", "kind", "dataset", "scenario", "condition", "method", "seed", "held_out")
TABLES: Mapping[str, tuple[str, ...]] = {
    "results": (
        *_RUN, "n_rounds", "n_epochs", "classifier", "cell_type", "metric", "value", "seconds", "peak_memory_mb",
        "device", "threads", "versions", "task",
    ),
    "distributions": (*_RUN, "metric", *QUANTILES, "n_groups"),
    "comparisons": (*TEST_KEYS, "method", "baseline", "n_seeds", "median_difference", "p_value"),
    "failures": ("task", "experiment", "dataset", "method", "seed", "held_out", "error", "log"),
}  # fmt: skip
"""Columns by table. A table is the CSV file of its name."""

TEXT_COLUMNS = frozenset({
    "experiment", "kind", "dataset", "scenario", "condition", "method", "held_out", "classifier", "cell_type", "metric",
    "device", "versions", "task", "baseline", "error", "log",
})  # fmt: skip
"""Columns that hold text; all others hold numbers."""
