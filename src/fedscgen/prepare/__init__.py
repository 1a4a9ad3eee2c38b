"""From raw counts to cells that a federation can train on: read, filter, name genes alike, normalise."""

from fedscgen.prepare._genes import GENE_NAMESPACES, GeneTable, find_namespace, read_gene_table
from fedscgen.prepare._options import PrepareOptions
from fedscgen.prepare._prepare import PREPARED_KEY, describe_preparation, prepare
from fedscgen.prepare._read import read_raw

__all__ = [
    "GENE_NAMESPACES",
    "PREPARED_KEY",
    "GeneTable",
    "PrepareOptions",
    "describe_preparation",
    "find_namespace",
    "prepare",
    "read_gene_table",
    "read_raw",
]
