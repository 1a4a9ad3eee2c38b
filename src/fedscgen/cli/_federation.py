"""``fedscgen demo``, ``simulate``, ``settings`` and ``correct``."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedscgen._files import check_readable, create_whole
from fedscgen._types import ReferenceKind
from fedscgen.aggregation import Strategy
from fedscgen.cli._arguments import (
    OVERWRITE,
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
from fedscgen.cli._sources import (
    GeneNames,
    MaxMito,
    MinGenes,
    Prepare,
    TableOfGenes,
    TargetSum,
    check_sources,
    name_types_alike,
    read_all,
    read_logarithms,
)

if TYPE_CHECKING:
    import pandas as pd
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
    overwrite: Overwrite = False,
) -> None:
    """See a whole federation at work, with no data of your own.

    Takes 700 real blood cells that ship with scanpy, gives them to three unequal hospitals with simulated site
    effects, trains across them, corrects each hospital's cells, and writes corrected.h5ad, the model and report.html.
    """
    with user_errors(), create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as folder:
        from fedscgen.datasets import demo_data

        chosen = _choose_settings(settings, n_rounds=rounds, n_epochs=epochs, seed=seed)
        adata = demo_data(chosen.federation.find_seed())
        _simulate_into(folder, adata, "batch", chosen, secure)
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
    prepare: Prepare = False,
    genes: GeneNames = "own",
    gene_table: TableOfGenes = None,
    target_sum: TargetSum = 1e4,
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
    with user_errors(), create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as folder:
        check_sources(files)
        from fedscgen.prepare import PrepareOptions

        recipe = PrepareOptions(None, genes, target_sum, min_genes, max_mito=max_mito)  # type: ignore[arg-type]
        chosen = _choose_settings(
            settings,
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
        )
        if unlabelled:
            chosen = replace(chosen, site=replace(chosen.site, labels_key=None, unlabeled_category=None))
        adata, chosen = read_all(files, site_key, chosen, (recipe, gene_table) if prepare else None)
        if label_map is not None:
            chosen = chosen.change(labels_key=name_types_alike(adata, chosen.site.labels_key, label_map))
        _simulate_into(folder, adata, site_key, chosen, secure, init_model)
    typer.echo(f"Open {output / 'report.html'} in a browser; the corrected cells are in {output / 'corrected.h5ad'}.")


def print_settings(
    source: Annotated[
        str, typer.Argument(metavar="[NAME|FILE.toml]", help="default, components, paper, or a file to be completed.")
    ] = "default",
) -> None:
    """Print all settings as a file for simulate --settings, with what each does."""
    with user_errors():
        from fedscgen.federation import read_settings, write_settings

        chosen = read_settings(source)
        typer.echo(write_settings(replace(chosen, federation=chosen.federation.spell_out())), nl=False)


def correct(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="This site's log-normalised cells: .h5ad, .h5mu or .zarr."),
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="Folder of a saved model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad).")],
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs with batches within this site; one batch by default.")
    ] = None,
    labels_key: Annotated[
        str | None, typer.Option(help="Column of obs with the cell types; the model's by default.")
    ] = None,
    unlabeled_category: Annotated[
        str | None, typer.Option(help="What the column says of cells without a label; the model's by default.")
    ] = None,
    label_map: LabelMap = None,
    unlabelled: Unlabelled = False,
    layer: Layer = None,
    include_newcomer: Annotated[
        bool,
        typer.Option(
            "--include-newcomer",
            help="Recompute references by cell type as if this site had taken part; landmarks need none of it.",
        ),
    ] = False,
    min_cells: Annotated[int, typer.Option(min=1, help="Fewest cells with which this site enters a reference.")] = 5,
    normalize: Normalize = False,
    allow_unaligned: Annotated[
        bool,
        typer.Option("--allow-unaligned", help="Correct cells even if the model knows none of their types."),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Correct the cells of a site that took no part in training; nothing leaves the site.

    Needs the folder model/ that a federation wrote, and a file with the same genes, in any order. Cells without a label
    get predicted ones.
    """
    with user_errors(), create_whole(output, overwrite=overwrite, remedy=OVERWRITE) as target:
        check_readable(file)
        if not (model / "model.json").is_file():
            raise ValueError(f"{model} holds no FedSCGEN model: model.json is missing")
        from fedscgen._data import MOVED_KEY, TYPES_KEY
        from fedscgen._types import References
        from fedscgen.correction import include_batches
        from fedscgen.model import FedSCGEN

        adata = read_logarithms(file, layer, normalize)
        if label_map is not None:
            labels_key = name_types_alike(adata, None if unlabelled else labels_key or "cell_type", label_map)
        named = {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
        keys: dict[str, Any] = {
            "batch_key": batch_key,
            "layer": layer,
            **{key: name for key, name in named.items() if name},
        }
        keys |= {"labels_key": None, "unlabeled_category": None} if unlabelled else {}
        loaded = FedSCGEN.load(model, adata, **keys)
        if loaded.references is None:
            raise ValueError(f"{model} holds no references: save the model that a federation returned")
        if include_newcomer:
            if not isinstance(loaded.references, References):
                raise ValueError("--include-newcomer is for references by cell type; landmarks serve every newcomer")
            loaded.references = include_batches(loaded.references, loaded.get_label_stats(), min_cells=min_cells)
        corrected = _drop_bookkeeping(loaded.correct(allow_unaligned=allow_unaligned))
        corrected.write_h5ad(target)
    _print_types(corrected.uns[TYPES_KEY])
    n_moved = int(corrected.obs[MOVED_KEY].sum())
    typer.echo(f"Wrote {corrected.n_obs} corrected cells to {output}. {n_moved} of them moved.")


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
) -> None:
    from fedscgen._output import try_writing
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
    result.corrected.write_h5ad(folder / "corrected.h5ad")
    result.model.save(folder / "model")
    result.history.to_csv(folder / "history.csv", index=False)
    result.ledger.to_csv(folder / "ledger.csv", index=False)
    _print_types(result.types)
    _report(folder / "report.html", adata, site_key, result, secure)


def _report(path: Path, adata: AnnData, site_key: str, result: SimulationResult, secure: str) -> None:
    """Write the page; cells that can't be drawn cost nobody the results."""
    from anndata import AnnData

    from fedscgen._data import LATENT_KEY
    from fedscgen._normalize import HOW, find_counts, normalize_counts
    from fedscgen.report import write_report

    site, corrected = result.site, result.corrected
    sites = site.keys.categories_of(adata, site_key)
    raw = find_counts(adata, site.keys, sites)
    shown = AnnData(
        site.keys.expression_of(normalize_counts(adata, site.keys, sites) if raw else adata),
        corrected.obs,
        uns=corrected.uns,
        obsm={LATENT_KEY: corrected.obsm[LATENT_KEY]},
    )
    labelled = site.keys.labels_of(shown).codes >= 0
    try:
        write_report(
            path,
            shown[labelled] if labelled.any() and not labelled.all() else shown,
            batch_key=site_key,
            labels_key=site.labels_key if labelled.any() else None,
            history=result.history,
            ledger=result.ledger,
            settings={"aggregator": secure, **vars(result.settings), "genes in common": len(result.genes)},
            uses_labels=result.uses_labels,
            types=result.types,
            notes=[f"The file holds counts, or no logarithms, at {', '.join(raw)}: {HOW}."] if raw else [],
        )
    except ValueError as error:
        logger.warning("there is no report.html: %s", error)


def _print_types(types: pd.DataFrame) -> None:
    if not types.empty:
        typer.echo(types.to_string(index=False))


def _drop_bookkeeping(adata: AnnData) -> AnnData:
    """Drop what registering the data has left in a copy of them."""
    adata.obs = adata.obs.loc[:, ~adata.obs.columns.str.startswith("_scvi")]
    for key in [key for key in adata.uns if key.startswith("_scvi")]:
        del adata.uns[key]
    return adata
