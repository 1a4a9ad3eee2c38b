"""From raw counts to cells that a federation can train on: read, filter, name genes and types alike, normalise."""

from fedscgen.prepare._genes import GENE_NAMESPACES, GeneTable, find_namespace, read_gene_table
from fedscgen.prepare._labels import (
    COMMON_LABELS_KEY,
    LabelProposal,
    add_common_labels,
    propose_labels,
    read_label_map,
    to_common,
    write_label_map,
)
from fedscgen.prepare._options import PrepareOptions
from fedscgen.prepare._orientation import find_transposed
from fedscgen.prepare._prepare import PREPARED_KEY, NoCellError, describe_preparation, prepare
from fedscgen.prepare._read import read_raw

__all__ = [
    "COMMON_LABELS_KEY",
    "GENE_NAMESPACES",
    "PREPARED_KEY",
    "GeneTable",
    "LabelProposal",
    "NoCellError",
    "PrepareOptions",
    "add_common_labels",
    "describe_preparation",
    "find_namespace",
    "find_transposed",
    "prepare",
    "propose_labels",
    "read_gene_table",
    "read_label_map",
    "read_raw",
    "to_common",
    "write_label_map",
]
