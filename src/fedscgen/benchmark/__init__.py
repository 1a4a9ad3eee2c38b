"""Experiments: read from a specification, run on all devices, and kept so that an interrupted run goes on."""

from fedscgen.benchmark._cells import UNLABELLED, Cells, Embedded
from fedscgen.benchmark._classification import classify
from fedscgen.benchmark._comparison import compare
from fedscgen.benchmark._cost import describe_plan
from fedscgen.benchmark._method import Method
from fedscgen.benchmark._methods import list_methods, register_method
from fedscgen.benchmark._read_spec import read_spec, standard_specs
from fedscgen.benchmark._run import BenchmarkSummary, run_benchmark, write_tables
from fedscgen.benchmark._spec import SpecError

__all__ = [
    "UNLABELLED",
    "BenchmarkSummary",
    "Cells",
    "Embedded",
    "Method",
    "SpecError",
    "classify",
    "compare",
    "describe_plan",
    "list_methods",
    "read_spec",
    "register_method",
    "run_benchmark",
    "standard_specs",
    "write_tables",
]
