"""Whether data hold cells in rows, as everything here expects, or genes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from fedscgen.prepare._genes import find_namespace

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen.prepare._genes import GeneTable

_MOST_NAMES = 5000
_FEWEST_KNOWN = 3
_EVERYWHERE = re.compile(r"mt-\w+|rp[ls]p?\d+\w*|actb|gapdh|b2m|malat1|eef1a1|tmsb4x", re.IGNORECASE)
_BARCODE = re.compile(r"(?<![A-Za-z])[ACGT]{12,}(?![A-Za-z])")


def find_transposed(sites: Mapping[str, AnnData], gene_table: GeneTable | None = None) -> dict[str, str]:
    """Sites whose data seem to hold genes in rows and cells in columns, and a name that tells it.

    They do where cells are called as genes are: by Ensembl ids, as in the table, as other sites' genes, or as a few
    that every cell has; or where genes are called by barcodes.

    Parameters
    ----------
    sites
        Cells of each site, by name. Not altered.
    gene_table
        What genes are and were called.
    """
    named = Counter(name for adata in sites.values() for name in {str(name).casefold() for name in adata.var_names})
    in_table = set() if gene_table is None else {name.casefold() for name in gene_table.current}
    found = {}
    for site, adata in sites.items():
        own = {str(name).casefold() for name in adata.var_names}

        def is_gene(name: str, own: set[str] = own) -> bool:
            folded = name.casefold()
            return folded in in_table or named[folded] > (folded in own)

        rows, columns = _take(adata.obs_names), _take(adata.var_names)
        if example := _find_gene(rows, columns, is_gene):
            found[site] = example
    return found


def _take(names: Iterable[object]) -> list[str]:
    """Some of the names, from all places."""
    texts = [str(name) for name in names]
    return texts[:: max(1, len(texts) // _MOST_NAMES)]


def _find_gene(rows: list[str], columns: list[str], is_gene: Callable[[str], bool]) -> str:
    """A row's name, if rows are called as genes are and columns aren't; else nothing."""
    if not rows or not columns or find_namespace(columns) == "ensembl":
        return ""
    if find_namespace(rows) == "ensembl" or 2 * sum(_BARCODE.search(name) is not None for name in columns) > len(
        columns
    ):
        return rows[0]
    usual = [name for name in rows if _EVERYWHERE.fullmatch(name)]
    if len(usual) >= _FEWEST_KNOWN and not any(map(_EVERYWHERE.fullmatch, columns)):
        return usual[0]
    genes = [name for name in rows if is_gene(name)]
    return genes[0] if 2 * len(genes) > len(rows) and 2 * sum(map(is_gene, columns)) < len(columns) else ""
