"""``fedscgen prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedscgen._files import check_readable, create_whole
from fedscgen.cli._arguments import OVERWRITE, Overwrite
from fedscgen.cli._errors import user_errors
from fedscgen.cli._sources import GeneNames, IgnoreCase, MaxMito, MinGenes, OneModality, TableOfGenes, TargetSum

MaxGenes = Annotated[int | None, typer.Option(min=1, help="Most genes of a cell that is kept; any number by default.")]


def prepare(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Raw counts: a 10x folder, 10x .h5, .h5ad, .h5mu, .zarr or .loom.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.h5ad", help="File to write.")],
    cells: Annotated[
        Path | None,
        typer.Option(
            help="CSV with names of cells and their columns of obs, such as cell_type; cells.csv of a folder."
        ),
    ] = None,
    genes: GeneNames = "own",
    gene_table: TableOfGenes = None,
    ignore_case: IgnoreCase = False,
    target_sum: TargetSum = 1e4,
    min_genes: MinGenes = 200,
    max_genes: MaxGenes = None,
    max_mito: MaxMito = 0.2,
    layer: Annotated[
        str | None, typer.Option(help="Where the counts are: X, raw or a layer; found by default.")
    ] = None,
    modality: OneModality = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="The file holds genes x cells.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make raw counts into cells that a federation can train on: filter, name genes alike, log-normalise.

    Never changes the input. Counts are kept in layers["counts"], and what was done is in uns["fedscgen_prepare"].
    """
    with user_errors(), create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as target:
        check_readable(source)
        from fedscgen._output import write_cells
        from fedscgen.prepare import PrepareOptions, describe_preparation, read_gene_table, read_raw
        from fedscgen.prepare import prepare as run

        options = PrepareOptions(layer, genes, target_sum, min_genes, max_genes, max_mito, ignore_case)  # type: ignore[arg-type]
        table = None if gene_table is None else read_gene_table(gene_table)
        raw = read_raw(source, modality=modality, cells=cells)
        adata = run(raw.T.copy() if transpose else raw, options, gene_table=table)
        write_cells(adata, target, compression="gzip")
        report = describe_preparation(adata)
    typer.echo(f"{report}\nWrote {output}.")
