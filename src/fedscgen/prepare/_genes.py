"""Genes by the names that a federation has agreed on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import pandas as pd

from fedscgen.prepare._options import Namespace

if TYPE_CHECKING:
    from os import PathLike

GENE_NAMESPACES: tuple[str, ...] = get_args(Namespace)
"""How a federation may call its genes."""

_ENSEMBL = re.compile(r"(ENS[A-Z]{0,4}G\d{11})(\.\d+)?(_PAR_Y)?")
_COLUMNS = ("symbol", "prev_symbol", "alias_symbol", "ensembl_gene_id")
_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_gene_id", "feature_id")
_SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "symbol", "gene_name", "feature_name")


@dataclass(frozen=True)
class GeneTable:
    """What genes are and were called.

    Parameters
    ----------
    current
        The approved symbol of every name: of itself, of previous symbols and of aliases. Names that several genes have
        or had, and none has as its symbol, are left out.
    ensembl
        Ensembl id by approved symbol.
    ambiguous
        The names that were left out.
    """

    current: Mapping[str, str]
    ensembl: Mapping[str, str]
    ambiguous: frozenset[str]

    @property
    def symbols(self) -> dict[str, str]:
        """Approved symbol by Ensembl id."""
        return {id_: symbol for symbol, id_ in self.ensembl.items()}


def read_gene_table(source: str | PathLike[str]) -> GeneTable:
    """Read a table of genes in the format of HGNC's complete set.

    Parameters
    ----------
    source
        Path, or address beginning with ``https://``, of a table with tabs between its columns, of which ``symbol``,
        ``prev_symbol``, ``alias_symbol`` (names with ``|`` between them) and ``ensembl_gene_id`` are read.

    Raises
    ------
    FileNotFoundError, OSError
        It can't be had.
    ValueError
        It is none.
    """
    where = str(source)
    if not where.startswith("https://") and not Path(where).exists():
        raise FileNotFoundError(f"{where} does not exist: give the path or https:// address of HGNC's complete set")
    try:
        table = pd.read_csv(where, sep="\t", dtype=str, usecols=list(_COLUMNS), keep_default_na=False)
    except ValueError as error:
        raise ValueError(f"{where} is no table of genes: it needs the columns {', '.join(_COLUMNS)}") from error
    current: dict[str, str] = {}
    ambiguous: set[str] = set()
    for column in ("symbol", "prev_symbol", "alias_symbol"):
        pairs = [(name, row[0]) for row in table[["symbol", column]].to_numpy() for name in _split(row[1])]
        new = {pair for pair in pairs if pair[0] not in current}
        times = Counter(name for name, _ in new)
        current |= {name: symbol for name, symbol in new if times[name] == 1 and name not in ambiguous}
        ambiguous |= {name for name, n in times.items() if n > 1}
    ensembl = {symbol: id_ for symbol, id_ in table[["symbol", "ensembl_gene_id"]].to_numpy() if id_}
    return GeneTable(current, ensembl, frozenset(ambiguous))


def find_namespace(names: Iterable[str]) -> str:
    """``"ensembl"`` if most names are Ensembl ids, else ``"symbol"``.

    Parameters
    ----------
    names
        Of the genes.
    """
    whether = [_ENSEMBL.fullmatch(name) is not None for name in names]
    return "ensembl" if sum(whether) * 2 > len(whether) else "symbol"


class Renamed(NamedTuple):
    """What genes are called now."""

    names: list[str]
    """In the data's order; may repeat."""
    unmapped: list[str]
    """Own names of those that no name was found for, and which keep their own."""


def rename_genes(var: pd.DataFrame, genes: Namespace, table: GeneTable | None, *, ignore_case: bool = False) -> Renamed:
    """Call each gene as the federation does; a symbol that the table lacks perhaps by another that differs by case.

    Raises
    ------
    ValueError
        The data have no such names, and there is no table to find them in; or case shall be ignored without a table.
    """
    own = [_strip_version(str(name)) for name in var.index]
    if ignore_case and (table is None or genes == "own"):
        raise ValueError("ignore_case: spelled right are the symbols of a gene_table: give one, and genes='symbol'")
    if genes == "own":
        return Renamed(own, [])
    ids = _find_names(var, own, _ID_COLUMNS, "ensembl")
    symbols = _find_names(var, own, _SYMBOL_COLUMNS, "symbol")
    direct = ids if genes == "ensembl" else symbols
    if table is None and not any(direct):
        raise ValueError(
            f"genes={genes!r}, but the data name theirs otherwise (first: {own[0]!r}): give a gene_table, such as "
            "HGNC's complete set, or a column of var with these names"
        )
    if table is not None and ignore_case:
        symbols = _spell(symbols, table)
    found = direct if table is None else _look_up(ids, symbols, genes, table)
    names = [name or before for name, before in zip(found, own, strict=True)]
    return Renamed(names, [before for name, before in zip(found, own, strict=True) if not name])


def _look_up(ids: Sequence[str], symbols: Sequence[str], genes: Namespace, table: GeneTable) -> list[str]:
    """Each gene's name by its id or, where that isn't known, by its symbol; empty if by neither."""
    by_id = table.symbols
    current = [by_id.get(id_) or table.current.get(symbol, "") for id_, symbol in zip(ids, symbols, strict=True)]
    if genes == "symbol":
        return current
    return [id_ or table.ensembl.get(symbol, "") for id_, symbol in zip(ids, current, strict=True)]


def _spell(symbols: Sequence[str], table: GeneTable) -> list[str]:
    """Symbols as the table has them, of those that differ by case from one gene's alone."""
    genes: dict[str, set[str]] = {}
    for name, gene in table.current.items():
        genes.setdefault(name.casefold(), set()).add(gene)
    spelled = {name: min(held) for name, held in genes.items() if len(held) == 1}
    return [name if name in table.current else spelled.get(name.casefold(), name) for name in symbols]


def _find_names(var: pd.DataFrame, own: list[str], columns: Sequence[str], namespace: str) -> list[str]:
    """Names of one kind, from ``var_names`` or a column of var; empty where there is none."""
    lists = [own, *([_strip_version(str(name)) for name in var[key]] for key in columns if key in var)]
    is_id = namespace == "ensembl"
    kept = [[name if bool(_ENSEMBL.fullmatch(name)) == is_id else "" for name in names] for names in lists]
    return max(kept, key=lambda names: sum(map(bool, names)))


def _strip_version(name: str) -> str:
    match = _ENSEMBL.fullmatch(name)
    return name if match is None else match[1]


def _split(names: str) -> list[str]:
    return [name for name in names.strip('"').split("|") if name]
