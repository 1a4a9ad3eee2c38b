"""Genes get the federation's names."""

import pandas as pd
import pytest

from fedscgen.prepare import find_namespace, read_gene_table
from fedscgen.prepare._genes import rename_genes
from raw_counts import GENE_TABLE


@pytest.fixture
def table(tmp_path):
    (tmp_path / "genes.tsv").write_text(GENE_TABLE)
    return read_gene_table(tmp_path / "genes.tsv")


def rename(names, genes, table=None, **columns):
    return rename_genes(pd.DataFrame(columns, index=names), genes, table)


def test_previous_symbols_and_aliases_become_current_symbols(table):
    found = rename(["CD97", "MARCH-I", "RNF171", "T3E", "ADGRE5"], "symbol", table)
    assert found.names == ["ADGRE5", "MARCHF1", "MARCHF1", "CD3E", "ADGRE5"]
    assert found.unmapped == []


def test_a_symbol_is_stronger_than_an_alias_and_a_shared_alias_is_nobody_s(table):
    assert table.current["B1"] == "B1"
    assert table.ambiguous == {"SHARED"}
    assert rename(["B1", "SHARED"], "symbol", table) == (["B1", "SHARED"], ["SHARED"])


def test_ids_lose_their_version_and_meet_the_symbols_of_others(table):
    assert rename(["ENSG00000123146.21", "ENSG00000198851"], "symbol", table).names == ["ADGRE5", "CD3E"]
    assert rename(["CD20", "CD97"], "ensembl", table).names == ["ENSG00000156738", "ENSG00000123146"]
    assert rename(["ENSG00000123146.21", "ENSG00000002586.20_PAR_Y"], "own").names == [
        "ENSG00000123146",
        "ENSG00000002586",
    ]


def test_what_the_table_lacks_keeps_its_name_and_is_listed(table):
    assert rename(["AC012345.1", "CD3E"], "symbol", table) == (["AC012345.1", "CD3E"], ["AC012345.1"])


def test_the_data_s_own_columns_serve_without_a_table():
    found = rename(["A", "B"], "ensembl", gene_ids=["ENSG00000123146.1", "ENSG00000198851.2"])
    assert found == (["ENSG00000123146", "ENSG00000198851"], [])
    with pytest.raises(ValueError, match=r"genes='ensembl'.*first: 'A'.*gene_table"):
        rename(["A", "B"], "ensembl")


def test_namespace_is_that_of_most_genes():
    assert find_namespace(["ENSG00000123146.1", "ENSMUSG00000000001", "A"]) == "ensembl"
    assert find_namespace(["ENSG00000123146.1", "B", "A"]) == "symbol"


def test_a_file_that_is_no_gene_table_is_refused(tmp_path):
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match=r"other.tsv is no table of genes: it needs the columns symbol"):
        read_gene_table(tmp_path / "other.tsv")
    with pytest.raises(FileNotFoundError, match="HGNC"):
        read_gene_table(tmp_path / "none.tsv")
