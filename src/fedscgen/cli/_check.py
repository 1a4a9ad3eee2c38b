"""``fedscgen check``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedscgen._files import create_whole
from fedscgen._options import check_settings
from fedscgen.cli._arguments import BatchColumns, LabelMap, LabelsKey, Layer, SecureOption, SettingsSource
from fedscgen.cli._errors import user_errors
from fedscgen.cli._site_files import Columns, Modality, Reading, Transposed, check_sources, read_sites
from fedscgen.cli._sources import (
    CommonTargetSum,
    GeneList,
    GeneNames,
    IgnoreCase,
    MaxMito,
    MinGenes,
    Prepare,
    TableOfGenes,
    TopGenes,
    make_recipe,
    one_or_several,
    prepare_sites,
    read_gene_list,
)

if TYPE_CHECKING:
    from anndata import AnnData

_OBSTACLES = 1


def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FILE...", help="Cells of a site each, in a file or 10x folder, or of all in one."
        ),
    ],
    site_key: Annotated[str | None, typer.Option(help="Column of obs with the sites, if one file holds all.")] = None,
    settings: SettingsSource = "default",
    batch_key: BatchColumns = None,
    labels_key: LabelsKey = None,
    label_map: LabelMap = None,
    unlabeled_category: Annotated[
        str | None, typer.Option(help="What the column says of cells without a label.")
    ] = None,
    layer: Layer = None,
    modality: Modality = None,
    column: Columns = None,
    transpose: Transposed = None,
    min_cells: Annotated[int | None, typer.Option(min=1, help="Fewest cells of a type that is reported.")] = None,
    n_top_genes: TopGenes = None,
    gene_list: GeneList = None,
    prepare: Prepare = False,
    genes: GeneNames = "own",
    gene_table: TableOfGenes = None,
    ignore_case: IgnoreCase = False,
    target_sum: CommonTargetSum = None,
    min_genes: MinGenes = 200,
    max_mito: MaxMito = 0.2,
    secure: SecureOption = "masked",
    html: Annotated[Path | None, typer.Option(help="Write a page to hand around.")] = None,
    propose: Annotated[Path | None, typer.Option(metavar="labels.toml", help="Write a label map to look at.")] = None,
) -> None:
    """See, before anybody trains, what would be shared, what stands in the way, and what it will cost.

    Nothing leaves the machine, and no file is changed. Ends with 1 if there is an obstacle.
    """
    with user_errors():
        check_sources(files)
        check_settings(settings)
        from fedscgen.check import check_sites, describe_check, write_check_page
        from fedscgen.federation import read_settings
        from fedscgen.prepare import read_label_map, write_label_map

        chosen = read_settings(settings).change(
            batch_key=one_or_several(batch_key),
            labels_key=labels_key,
            unlabeled_category=unlabeled_category,
            layer=layer,
            min_cells=min_cells,
            n_top_genes=n_top_genes,
            gene_list=read_gene_list(gene_list),
            target_sum=target_sum,
        )
        known = {} if label_map is None else read_label_map(label_map)
        left_out: dict[str, str] = {}
        sites = _read_sites(files, site_key, Reading.of(modality, column, transpose), left_out)
        if prepare:
            recipe = make_recipe(chosen, genes, min_genes, max_mito, ignore_case)
            sites = prepare_sites(sites, recipe, gene_table, left_out)
            chosen = replace(chosen, site=replace(chosen.site, layer=None))
        if not sites:
            raise ValueError("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
        checked = check_sites(
            sites,
            settings=chosen.federation,
            options=chosen.site,
            label_map=known,
            min_confidence=chosen.correction.min_confidence,
        )
        checked = replace(checked, left_out={**left_out, **checked.left_out})
        typer.echo(describe_check(checked, secure=secure))
        if html is not None:
            write_check_page(html, checked, secure=secure)
        if propose is not None:
            with create_whole(propose, overwrite=False, remedy="edit it, or choose another place") as target:
                write_label_map(target, checked.proposal.extend(known))
    if checked.n_obstacles:
        raise typer.Exit(_OBSTACLES)


def _read_sites(files: list[str], site_key: str | None, how: Reading, unread: dict[str, str]) -> dict[str, AnnData]:
    """Cells by site: of one file by its column, of several by their names."""
    from fedscgen._data import DataKeys

    if site_key is None:
        return read_sites(files, how, unread)
    if len(files) > 1:
        raise ValueError("--site-key is for one file that holds all sites: leave it out, as every file is a site's")
    adata = next(iter(read_sites(files, how).values()))
    sites = DataKeys().categories_of(adata, site_key)
    return {site: adata[sites == site] for site in sites.categories}
