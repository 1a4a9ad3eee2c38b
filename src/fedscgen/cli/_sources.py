"""Files that each hold a site's cells, raw or prepared."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedscgen._files import check_readable
from fedscgen.cli._site_files import read_sites, refuse_transposed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

    from fedscgen._batches import BatchKey
    from fedscgen.cli._site_files import Reading
    from fedscgen.federation import SimulationSettings
    from fedscgen.prepare import PrepareOptions

_USUAL_SUM = 1e4

_GENES_OF_DEMO = 20  # of a cell that is kept: its counts are of 765 genes
_NO_LABEL = "unlabelled"

Prepare = Annotated[
    bool,
    typer.Option("--prepare", help="The files hold raw counts: make cells of them first, as fedscgen prepare does."),
]
GeneNames = Annotated[
    str, typer.Option("--genes", metavar="own|symbol|ensembl", help="How the federation calls its genes.")
]
TableOfGenes = Annotated[
    str | None,
    typer.Option("--gene-table", metavar="FILE|URL", help="Past and present gene names, as in HGNC's complete set."),
]
TargetSum = Annotated[float, typer.Option(help="Molecules that each cell is normalised to, the same at all sites.")]
CommonTargetSum = Annotated[
    float | None,
    typer.Option(
        "--target-sum",
        help="Molecules that each cell is normalised to at all sites; cells that were normalised to another number are "
        "refused. With --prepare 10,000 by default.",
    ),
]
TopGenes = Annotated[
    int | None,
    typer.Option(
        "--n-top-genes",
        min=2,
        help="Train on so many genes alone, those that vary most, which the sites choose together by sums. "
        "All genes in common by default.",
    ),
]
GeneList = Annotated[
    Path | None,
    typer.Option("--gene-list", metavar="FILE", help="Names of the only genes that are used, one in each line."),
]
OneModality = Annotated[
    str | None,
    typer.Option(
        "--modality", help="Which modality of an .h5mu file has the expression; rna or the only one by default."
    ),
]
IgnoreCase = Annotated[
    bool,
    typer.Option(
        "--ignore-case",
        help="Find symbols in the gene table by other case, too: for data of the table's species alone.",
    ),
]
MinGenes = Annotated[int, typer.Option(min=0, help="Fewest genes of a cell that is kept.")]
MaxMito = Annotated[float, typer.Option(min=0, max=1, help="Largest mitochondrial share of a cell that is kept.")]


def make_recipe(
    settings: SimulationSettings, genes: str, min_genes: int, max_mito: float, ignore_case: bool
) -> PrepareOptions:
    """How counts are prepared for a federation of these settings, whose layer is where counts are."""
    from fedscgen.prepare import PrepareOptions

    target_sum = settings.federation.target_sum or _USUAL_SUM
    return PrepareOptions(
        settings.site.layer,
        genes,  # type: ignore[arg-type]
        target_sum,
        min_genes,
        max_mito=max_mito,
        ignore_case=ignore_case,
    )


def one_or_several(names: list[str] | None) -> str | tuple[str, ...] | None:
    """What an option that can be repeated names, if anything."""
    if not names:
        return None
    return names[0] if len(names) == 1 else tuple(names)


def read_gene_list(path: Path | None) -> tuple[str, ...] | None:
    """Names of genes, one in each line of a file.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file, or it holds no name or bytes that are no text.
    """
    if path is None:
        return None
    check_readable(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--gene-list {path} is no text: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"--gene-list {path} holds no name: write one gene in each line")
    return names


def prepare_sites(
    sites: dict[str, AnnData],
    options: PrepareOptions,
    gene_table: str | None,
    left_out: dict[str, str] | None = None,
) -> dict[str, AnnData]:
    """The cells of each site, made of its counts; what was done is told.

    With ``left_out``, why a site's can't be made is put there, and the others go on; without it they do where the
    preparation has left a site no cell. A layer is for the sites that have it.
    """
    from fedscgen.prepare import NoCellError, describe_preparation, find_transposed, prepare, read_gene_table

    table = None if gene_table is None else read_gene_table(gene_table)
    transposed = find_transposed(sites, table)
    if not any(options.layer in (None, "X", "raw", *adata.layers) for adata in sites.values()):
        raise KeyError(f"layer={options.layer!r}: no site has it; name one with counts, or leave it out")
    prepared = {}
    for name, adata in sites.items():
        try:
            refuse_transposed(transposed.get(name, ""))
            held = options.layer in (None, "X", "raw", *adata.layers)
            prepared[name] = prepare(adata, options if held else replace(options, layer=None), gene_table=table)
        except (KeyError, ValueError) as error:
            if left_out is not None:
                left_out[name] = str(error.args[0])
            elif isinstance(error, NoCellError) and len(sites) > 1:
                typer.echo(f"{name} is left out: {error.args[0]}")
            else:
                raise type(error)(f"{name}: {error.args[0]}") from error
            continue
        typer.echo(f"{name}: {describe_preparation(prepared[name])}")
    return prepared


def join_sites(
    sites: dict[str, AnnData], site_key: str, labels_key: str | None, batch_key: BatchKey = None, *, union: bool = False
) -> AnnData:
    """All sites' cells, with the site in a column; one without labels has missing ones, which is told.

    A site without a column of batches that others have is one batch.
    """
    import pandas as pd

    from fedscgen._join import concatenate

    _fill_batches(sites, (batch_key,) if isinstance(batch_key, str) else batch_key or ())
    for name, adata in sites.items():
        if labels_key is not None and labels_key not in adata.obs:
            typer.echo(f"{name}: no cell has a label in {labels_key!r}; their types are predicted")
            adata.obs[labels_key] = pd.Series(None, index=adata.obs_names, dtype=object)
    common = [name for name in next(iter(sites.values())).var_names if all(name in a.var_names for a in sites.values())]
    if not common and not union:
        raise ValueError("the sites share no gene: add --prepare with --genes and --gene-table, or see fedscgen check")
    return concatenate(sites if union else {name: a[:, common] for name, a in sites.items()}, site_key)


def _fill_batches(sites: Mapping[str, AnnData], columns: Sequence[str]) -> None:
    """Give sites the columns of batches that only others have."""
    for key in columns:
        lacking = [name for name, adata in sites.items() if key not in adata.obs]
        for name in lacking if len(lacking) < len(sites) else ():
            sites[name].obs[key] = name
            typer.echo(f"{name}: there is no column {key!r}; its cells are alike in it")


def read_all(
    files: list[str],
    site_key: str,
    settings: SimulationSettings,
    recipe: tuple[PrepareOptions, str | None] | None,
    how: Reading,
) -> tuple[AnnData, str, SimulationSettings]:
    """All sites' cells, the column with the sites, and settings that let sites be without labels where one is."""
    from fedscgen._join import name_column

    sites = read_sites(files, how)
    if len(sites) == 1 and recipe is None:
        return next(iter(sites.values())), site_key, settings
    if recipe is not None:
        sites = prepare_sites(sites, *recipe)
        settings = replace(settings, site=replace(settings.site, layer=None))
    sites = _leave_out_empty(sites)
    labels_key = settings.site.labels_key
    lacking = any(labels_key not in adata.obs for adata in sites.values())
    if lacking and labels_key is not None and settings.site.unlabeled_category is None:
        settings = settings.change(unlabeled_category=_NO_LABEL)
    site_key, union = name_column(sites, site_key), settings.federation.genes == "union"
    return join_sites(sites, site_key, labels_key, settings.site.batch_key, union=union), site_key, settings


def _leave_out_empty(sites: dict[str, AnnData]) -> dict[str, AnnData]:
    """The sites that have cells; who has none is told."""
    for name in [name for name, adata in sites.items() if not adata.n_obs]:
        typer.echo(f"{name} is left out: its file holds no cell")
    left = {name: adata for name, adata in sites.items() if adata.n_obs}
    if not left:
        raise ValueError("no site has a cell that could be used")
    return left


def begin_with_counts(seed: int, settings: SimulationSettings) -> tuple[AnnData, SimulationSettings]:
    """The demonstration's cells, made of counts; what a check says of them is told, and what it proposes taken."""
    from fedscgen.check import check_sites
    from fedscgen.datasets import demo_counts
    from fedscgen.prepare import PrepareOptions, add_common_labels

    sites = prepare_sites(demo_counts(seed), PrepareOptions(min_genes=_GENES_OF_DEMO), None)
    checked = check_sites(sites, settings=settings.federation, options=settings.site)
    for finding in checked.findings:
        typer.echo(f"{finding.weight}: {finding.text}")
    typer.echo("The proposed names are taken, as somebody would accept them in labels.toml.")
    adata = join_sites(sites, "batch", "cell_type")
    key = add_common_labels(adata, checked.proposal.sure)
    return adata, settings.change(labels_key=key)


def name_types_alike(adata: AnnData, labels_key: str | None, label_map: Path) -> str:
    """Add the federation's names of cell types, and return their column."""
    from fedscgen.prepare import add_common_labels, read_label_map

    if labels_key is None:
        raise ValueError(f"--label-map {label_map}, but no cell has a label: name a column, or leave the map out")
    return add_common_labels(adata, read_label_map(label_map), labels_key=labels_key)


@contextmanager
def open_logarithms(file: Path, layer: str | None, normalize: bool, modality: str | None = None) -> Iterator[AnnData]:
    """A newcomer's cells, of which counts are refused or, on request, normalised; else expression stays in the file."""
    from fedscgen._data import DataKeys
    from fedscgen._normalize import normalize_counts, refuse_counts
    from fedscgen._read_cells import open_cells, read_cells

    keys = DataKeys(layer=layer)
    if normalize:
        yield normalize_counts(read_cells(file, modality=modality), keys)
        return
    with open_cells(file, modality) as adata:
        refuse_counts(adata, keys)
        yield adata


def print_types(types: pd.DataFrame) -> None:
    """Say of each site and type how many cells moved."""
    if not types.empty:
        typer.echo(types.to_string(index=False))
