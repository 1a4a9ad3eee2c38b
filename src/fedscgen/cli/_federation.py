"""``fedscgen demo``, ``simulate`` and ``settings``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedscgen._files import create_whole
from fedscgen._options import check_settings
from fedscgen._types import ReferenceKind
from fedscgen.aggregation import Strategy
from fedscgen.cli._arguments import (
    OVERWRITE,
    BatchColumns,
    Epochs,
    LabelMap,
    LabelsKey,
    Layer,
    Normalize,
    Overwrite,
    Rounds,
    SecureOption,
    Seed,
    SettingsSource,
    Unlabelled,
)
from fedscgen.cli._errors import user_errors
from fedscgen.cli._kept import keep_training, write_training
from fedscgen.cli._site_files import Columns, Modality, Reading, Transposed, check_sources
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
    begin_with_counts,
    make_recipe,
    name_types_alike,
    one_or_several,
    print_types,
    read_all,
    read_gene_list,
)
from fedscgen.cli._warnings import keep_warnings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from fedscgen.federation import SimulationResult, SimulationSettings

logger = logging.getLogger(__name__)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path("fedscgen_demo"),
    settings: SettingsSource = "default",
    rounds: Rounds = None,
    epochs: Epochs = None,
    secure: SecureOption = "plain",
    seed: Seed = None,
    counts: Annotated[
        bool,
        typer.Option("--counts", help="Begin with raw counts, and with types that one hospital spells otherwise."),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """See a whole federation at work, with no data of your own.

    Takes 700 real blood cells that ship with scanpy, gives them to three unequal hospitals with simulated site
    effects, trains across them, corrects each hospital's cells, and writes corrected.h5ad, the model and report.html.
    """
    with (
        user_errors(),
        keep_warnings() as warned,
        create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as folder,
    ):
        check_settings(settings)
        from fedscgen.datasets import demo_data

        chosen = _choose_settings(settings, n_rounds=rounds, n_epochs=epochs, seed=seed)
        number = chosen.federation.find_seed()
        adata, chosen = begin_with_counts(number, chosen) if counts else (demo_data(number), chosen)
        source = f"Blood cells that ship with scanpy, {'counts' if counts else 'logarithms'} (seed {number})"
        failed = _simulate_into(folder, adata, "batch", chosen, secure, told=_Told([source], warned))
    _end_if_failed(failed, output)
    typer.echo(f"Open {output / 'report.html'} in a browser.")


def simulate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FILE...",
            help="Log-normalised cells of all sites in one file (.h5ad, .h5mu, .zarr), or those of a site in each.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    site_key: Annotated[str, typer.Option(help="Column of obs with the sites.")] = "batch",
    settings: SettingsSource = "default",
    batch_key: BatchColumns = None,
    labels_key: LabelsKey = None,
    label_map: LabelMap = None,
    unlabeled_category: Annotated[
        str | None,
        typer.Option(
            help="What the column says of cells without a label; those with no value are then without one, too. Their "
            "types are predicted."
        ),
    ] = None,
    unlabelled: Unlabelled = False,
    layer: Layer = None,
    modality: Modality = None,
    column: Columns = None,
    transpose: Transposed = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="Weigh sites by their cells, which is the default, or all alike.")
    ] = None,
    reference: Annotated[
        ReferenceKind | None,
        typer.Option(
            help="Where cells belong. landmarks, the default: at places that the sites have in common, with or without "
            "labels. mean: each cell type at its mean over all sites. dominant, as published: at that of the site with "
            "most cells of it, which mistakes differences between sites for differences between types."
        ),
    ] = None,
    min_cells: Annotated[
        int | None,
        typer.Option(min=1, help="Cell types with fewer cells in a batch of a site are not reported; 5 by default."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many rounds without a better validation loss.")
    ] = None,
    min_sites: Annotated[
        int | None, typer.Option(min=1, help="Fewest sites that must take part; 1 lets one site be alone.")
    ] = None,
    unaligned_site: Annotated[
        list[str] | None,
        typer.Option(help="A site that may take part though none of its cell types is shared; can be repeated."),
    ] = None,
    normalize: Normalize = False,
    init_model: Annotated[
        Path | None,
        typer.Option(
            help="What training begins with: the folder of a model, or a file with weights of the published network "
            "(.pt). Random weights by default."
        ),
    ] = None,
    n_top_genes: TopGenes = None,
    gene_list: GeneList = None,
    prepare: Prepare = False,
    genes: GeneNames = "own",
    gene_table: TableOfGenes = None,
    ignore_case: IgnoreCase = False,
    target_sum: CommonTargetSum = None,
    min_genes: MinGenes = 200,
    max_mito: MaxMito = 0.2,
    secure: SecureOption = "plain",
    seed: Seed = None,
    overwrite: Overwrite = False,
) -> None:
    """Run the federation over your own sites in one process: a file that is split into sites, or one file of each.

    Writes corrected.h5ad (obsm["X_fedscgen"] and layers["fedscgen_corrected"]), model/ for new sites, history.csv,
    ledger.csv (what left each site) and report.html. The folder appears only when all of it is complete.
    """
    with (
        user_errors(),
        keep_warnings() as warned,
        create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as folder,
    ):
        check_sources(files)
        check_settings(settings)
        chosen = _choose_settings(
            settings,
            batch_key=one_or_several(batch_key),
            labels_key=labels_key,
            unlabeled_category=unlabeled_category,
            layer=layer,
            n_rounds=rounds,
            n_epochs=epochs,
            strategy=strategy,
            reference=reference,
            min_cells=min_cells,
            early_stopping_patience=patience,
            min_sites=min_sites,
            unaligned_sites=tuple(unaligned_site) if unaligned_site else None,
            normalize=normalize or None,
            seed=seed,
            n_top_genes=n_top_genes,
            gene_list=read_gene_list(gene_list),
            target_sum=target_sum,
        )
        recipe = make_recipe(chosen, genes, min_genes, max_mito, ignore_case)
        if unlabelled:
            chosen = replace(chosen, site=replace(chosen.site, labels_key=None, unlabeled_category=None))
        how, first = Reading.of(modality, column, transpose), (recipe, gene_table) if prepare else None
        adata, site_key, chosen = read_all(files, site_key, chosen, first, how)
        if label_map is not None:
            chosen = chosen.change(labels_key=name_types_alike(adata, chosen.site.labels_key, label_map))
        failed = _simulate_into(folder, adata, site_key, chosen, secure, init_model, told=_Told(files, warned))
    _end_if_failed(failed, output)
    typer.echo(f"Open {output / 'report.html'} in a browser; the corrected cells are in {output / 'corrected.h5ad'}.")


def print_settings(
    source: Annotated[
        str, typer.Argument(metavar="[NAME|FILE.toml]", help="default, components, paper, or a file to be completed.")
    ] = "default",
) -> None:
    """Print all settings as a file for simulate --settings, with what each does."""
    with user_errors():
        check_settings(source)
        from fedscgen.federation import read_settings, write_settings

        chosen = read_settings(source)
        typer.echo(write_settings(replace(chosen, federation=chosen.federation.spell_out())), nl=False)


@dataclass(frozen=True)
class _Told:
    """What the page tells of a run that its result doesn't: where the cells are from, and what was warned of."""

    inputs: list[str]
    warnings: list[str]


def _choose_settings(source: str, **changes: Any) -> SimulationSettings:
    """Settings by name or file, with what the command line says in place of theirs."""
    from fedscgen.federation import read_settings

    chosen = read_settings(source).change(**changes)
    return chosen.change(seed=0) if chosen.federation.seed is None else chosen


def _simulate_into(
    folder: Path,
    adata: AnnData,
    site_key: str,
    settings: SimulationSettings,
    secure: str,
    init_model: Path | None = None,
    *,
    told: _Told,
) -> Mapping[str, str]:
    """Write all that a simulation yields; why a site couldn't correct its cells, by its name."""
    from fedscgen._output import try_writing, write_cells
    from fedscgen.federation import simulate as run

    folder.mkdir()
    try_writing(adata, folder)
    result = run(
        adata,
        site_key,
        settings=settings.federation,
        site=settings.site,
        correction=settings.correction,
        secure=secure,
        init_model=init_model,
    )
    try:
        write_training(folder, result)
        write_cells(result.corrected, folder / "corrected.h5ad")
    except Exception as error:
        kept = keep_training(folder, result)
        remedy = (
            f"what was trained is in {kept}, with which fedscgen correct --model {kept / 'model'} corrects the cells"
        )
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"{folder.name} can't be written ({reason}): {remedy}") from error
    print_types(result.types)
    _report(folder / "report.html", adata, site_key, result, secure, told)
    return result.failed


def _end_if_failed(failed: Mapping[str, str], output: Path) -> None:
    """End with an error where a site's cells are not corrected, although the rest is written."""
    if failed:
        typer.secho(f"Error: {'; '.join(failed.values())}. All else is in {output}.", err=True, fg=typer.colors.RED)
        raise typer.Exit(1)


def _report(path: Path, adata: AnnData, site_key: str, result: SimulationResult, secure: str, told: _Told) -> None:
    """Write the page; cells that can't be drawn cost nobody the results."""
    from fedscgen._normalize import HOW, find_counts, normalize_counts
    from fedscgen.report import write_report

    site = result.site
    sites = site.keys.categories_of(adata, site_key)
    raw = find_counts(adata, site.keys, sites)
    shown = _join_before_and_after(normalize_counts(adata, site.keys, sites) if raw else adata, result)
    labelled = site.keys.labels_of(shown).codes >= 0
    labels_key = site.labels_key if labelled.any() else None
    obs = shown.obs if labels_key is None else shown.obs.assign(**{labels_key: shown.obs[labels_key].where(labelled)})
    resolved = {**vars(result.settings.spell_out()), "gene_list": f"{len(result.settings.gene_list)} names"}
    settings = {"site_key": site_key, **vars(site), **vars(result.correction), **resolved}
    try:
        write_report(
            path,
            shown[labelled] if labelled.any() and not labelled.all() else shown,
            batch_key=site_key,
            labels_key=labels_key,
            history=result.history,
            ledger=result.ledger,
            settings={"aggregator": secure, **settings, "genes of the model": len(result.genes)},
            uses_labels=result.uses_labels,
            types=result.types,
            notes=[f"The file holds counts, or no logarithms, at {', '.join(raw)}: {HOW}."] if raw else [],
            inputs=told.inputs,
            warnings=told.warnings,
            obs=obs,
        )
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        logger.warning("there is no report.html: %s", error)


def _join_before_and_after(adata: AnnData, result: SimulationResult) -> AnnData:
    """Cells as the page takes them: expression before correction in ``X``, and what came of it."""
    from anndata import AnnData

    from fedscgen._data import CORRECTED_LAYER, LATENT_KEY

    corrected = result.corrected
    before = result.site.keys.expression_of(adata)
    shown = AnnData(before, corrected.obs, uns=corrected.uns, obsm={LATENT_KEY: corrected.obsm[LATENT_KEY]})
    where = result.correction.expression
    if where is None:
        return shown
    shown.var_names = adata.var_names
    if list(shown.var_names) != list(corrected.var_names):
        shown = shown[:, corrected.var_names].copy()
    shown.var = corrected.var
    shown.layers[CORRECTED_LAYER] = corrected.X if where == "X" else corrected.layers[where]
    return shown
