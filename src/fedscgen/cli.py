"""The command line: ``fedscgen demo``, ``simulate``, ``correct``, ``benchmark`` and ``flower``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedscgen._files import read_cells, replacing
from fedscgen.aggregation import Strategy
from fedscgen.correction import ReferenceKind
from fedscgen.flower import commands
from fedscgen.secure import AggregatorName

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen.federation import SimulationSettings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Integrate single-cell RNA-seq across sites that may not share their cells.",
)

benchmark = typer.Typer(no_args_is_help=True, help="Compare methods in experiments that resume where they stopped.")
app.add_typer(benchmark, name="benchmark")

flower = typer.Typer(no_args_is_help=True, help="Prepare a federation across institutions, on Flower.")
app.add_typer(flower, name="flower")

_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130
_OVERWRITE = "choose another place or add --overwrite"

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
SettingsSource = Annotated[
    str,
    typer.Option(
        "--settings",
        metavar="NAME|FILE.toml",
        help="All settings: default, paper (the published network and schedule), or a file as fedscgen settings prints "
        "it. Other options go before.",
    ),
]
Rounds = Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds of training.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs of every site in a round.")]
Seed = Annotated[int | None, typer.Option(help="Where all random numbers come from; 0 if no settings say otherwise.")]
SecureOption = Annotated[
    AggregatorName,
    typer.Option(
        help="How sums over the sites are opened. plain: the coordinator sees every update, for study only. masked: "
        "pairwise masks. crypten: secret shares among compute processes. The last two need the extras of their names."
    ),
]
LabelsKey = Annotated[str | None, typer.Option(help="Column of obs with the cell types; cell_type by default.")]
Layer = Annotated[str | None, typer.Option(help="Layer with log-normalised expression; X by default.")]


@app.callback()
def main(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False) -> None:
    """Integrate single-cell RNA-seq across sites that may not share their cells."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"


@app.command()
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
    with _user_errors(), replacing(output, overwrite=overwrite, remedy=_OVERWRITE) as folder:
        from fedscgen.datasets import demo_data

        chosen = _choose_settings(settings, n_rounds=rounds, n_epochs=epochs, seed=seed)
        adata = demo_data(chosen.federation.find_seed())
        _simulate_into(folder, adata, "batch", chosen, secure)
    typer.echo(f"Open {output / 'report.html'} in a browser.")


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(metavar="FILE.h5ad", help="Log-normalised cells of all sites.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    site_key: Annotated[str, typer.Option(help="Column of obs with the sites.")] = "batch",
    settings: SettingsSource = "default",
    labels_key: LabelsKey = None,
    unlabeled_category: Annotated[
        str | None,
        typer.Option(
            help="What the column says of cells without a label; those with no value are then without one, too. They "
            "move as most of the labelled cells nearest to them do."
        ),
    ] = None,
    layer: Layer = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="Weigh sites by their cells, which is the default, or all alike.")
    ] = None,
    reference: Annotated[
        ReferenceKind | None,
        typer.Option(
            help="Where a cell type belongs: at the mean of the site with most cells of it, or at the mean over all "
            "sites. By default dominant, where it can be found without showing counts."
        ),
    ] = None,
    min_cells: Annotated[
        int | None, typer.Option(min=1, help="Cell types with fewer cells at a site are not reported; 5 by default.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many rounds without a better validation loss.")
    ] = None,
    secure: SecureOption = "plain",
    seed: Seed = None,
    overwrite: Overwrite = False,
) -> None:
    """Split your own file into sites, and run the federation over them in one process.

    Writes corrected.h5ad (obsm["X_fedscgen"] and layers["fedscgen_corrected"]), model/ for new sites, history.csv,
    ledger.csv (what left each site) and report.html. The folder appears only when all of it is complete.
    """
    with _user_errors(), replacing(output, overwrite=overwrite, remedy=_OVERWRITE) as folder:
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
            seed=seed,
        )
        _simulate_into(folder, read_cells(file), site_key, chosen, secure)
    typer.echo(f"Open {output / 'report.html'} in a browser; the corrected cells are in {output / 'corrected.h5ad'}.")


@app.command("settings")
def print_settings(
    source: Annotated[
        str, typer.Argument(metavar="[NAME|FILE.toml]", help="default, paper, or a file to be completed.")
    ] = "default",
) -> None:
    """Print all settings as a file for simulate --settings, with what each does."""
    with _user_errors():
        from fedscgen.federation import read_settings, write_settings

        typer.echo(write_settings(read_settings(source)), nl=False)


@app.command()
def correct(
    file: Annotated[Path, typer.Argument(metavar="FILE.h5ad", help="This site's log-normalised cells.")],
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
    layer: Layer = None,
    include_newcomer: Annotated[
        bool,
        typer.Option("--include-newcomer", help="Recompute the references as if this site had taken part."),
    ] = False,
    min_cells: Annotated[int, typer.Option(min=1, help="Fewest cells with which this site enters a reference.")] = 5,
    overwrite: Overwrite = False,
) -> None:
    """Correct the cells of a site that took no part in training; nothing leaves the site.

    Needs the folder model/ that a federation wrote, and a file with the same genes (in any order) and cell types.
    """
    with _user_errors(), replacing(output, overwrite=overwrite, remedy=_OVERWRITE) as target:
        from fedscgen.correction import include_batches
        from fedscgen.model import FedSCGEN

        named = {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
        keys = {"batch_key": batch_key, "layer": layer, **{key: name for key, name in named.items() if name}}
        loaded = FedSCGEN.load(model, read_cells(file), **keys)
        if loaded.references is None:
            raise ValueError(f"{model} holds no references: save the model that a federation returned")
        if include_newcomer:
            loaded.references = include_batches(loaded.references, loaded.get_label_stats(), min_cells=min_cells)
        corrected = _drop_bookkeeping(loaded.correct())
        corrected.write_h5ad(target)
    typer.echo(f"Wrote {corrected.n_obs} corrected cells to {output}.")


@benchmark.command("run")
def benchmark_run(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A TOML file, or the name of a specification: smoke, quality, paper.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results; a run in it goes on.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE.h5ad",
            help="Your own cells, with obs['batch'] and obs['cell_type'], for every experiment. May be repeated.",
        ),
    ] = None,
    devices: Annotated[str, typer.Option(help="'cpu', or numbers of GPUs with commas between them.")] = "cpu",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Tasks at a time. By default one per GPU, or one per CPU core.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads a task.")] = 1,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with published data (NAME.h5ad); what is missing is downloaded.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it costs; run nothing.")] = False,
) -> None:
    """Run a specification's experiments over the devices, and write tables and report.html.

    Interrupt it as you like: the same command goes on where it stopped, and finished tasks are never run again. A task
    that fails doesn't stop the others; it is listed in the report, and tried again by the next run.
    """
    from fedscgen.benchmark import describe_plan, run_benchmark
    from fedscgen.benchmark.report import write_benchmark_report

    with _user_errors():
        chosen = [device.strip() for device in devices.split(",")]
        options: dict[str, Any] = {
            "devices": chosen,
            "jobs": jobs,
            "threads": threads,
            "extra_data": _read_named_files(data),
        }
        if dry_run:
            typer.echo(describe_plan(spec, output, **options))
            return
        try:
            summary = run_benchmark(spec, output, data_dir=data_dir, **options)
        except KeyboardInterrupt:
            typer.echo(f"Interrupted. What is finished is in {output}; the same command goes on.", err=True)
            raise typer.Exit(_INTERRUPTED) from None
        write_benchmark_report(output)
    typer.echo(f"{summary}\nOpen {output / 'report.html'} in a browser; the numbers are in {output / 'results.csv'}.")
    if summary.n_failed:
        raise typer.Exit(_FAILED)


@benchmark.command("report")
def benchmark_report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of results, of a run that may still go on.")],
) -> None:
    """Write tables, figures and report.html of what is finished so far."""
    from fedscgen.benchmark import write_tables
    from fedscgen.benchmark.report import write_benchmark_report

    with _user_errors():
        write_tables(folder)
        write_benchmark_report(folder)
    typer.echo(f"Open {folder / 'report.html'} in a browser.")


@benchmark.command("spec")
def benchmark_spec(
    name: Annotated[str | None, typer.Argument(help="smoke, quality or paper; a list if left out.")] = None,
) -> None:
    """Print a specification that comes with the package, to begin your own with."""
    from fedscgen.benchmark import standard_specs

    specs = standard_specs()
    with _user_errors():
        if name is not None and name not in specs:
            raise ValueError(f"no specification {name!r}: there are {', '.join(sorted(specs))}")
        typer.echo(specs[name].rstrip() if name else "\n".join(sorted(specs)))


def _read_named_files(data: list[str] | None) -> dict[str, Path]:
    """Files by the names that tables call them."""
    files = {}
    for item in data or []:
        name, equals, file = item.partition("=")
        if not (name and equals and file):
            raise ValueError(f"--data {item}: write NAME=FILE.h5ad, with the name that tables shall call the cells")
        files[name] = Path(file)
    return files


def _choose_settings(source: str, **changes: Any) -> SimulationSettings:
    """Settings by name or file, but for what the command line says."""
    from fedscgen.federation import read_settings

    chosen = read_settings(source).change(**changes)
    return chosen.change(seed=0) if chosen.federation.seed is None else chosen


def _simulate_into(folder: Path, adata: AnnData, site_key: str, settings: SimulationSettings, secure: str) -> None:
    from fedscgen.federation import simulate as run
    from fedscgen.report import write_report

    folder.mkdir()
    site = settings.site
    result = run(
        adata, site_key, settings=settings.federation, site=site, correction=settings.correction, secure=secure
    )
    result.corrected.write_h5ad(folder / "corrected.h5ad")
    result.model.save(folder / "model")
    result.history.to_csv(folder / "history.csv", index=False)
    result.ledger.to_csv(folder / "ledger.csv", index=False)
    labels = result.corrected.obs[site.labels_key]
    labelled = labels.notna() & (labels != site.unlabeled_category)
    write_report(
        folder / "report.html",
        result.corrected[labelled] if not labelled.all() else result.corrected,
        batch_key=site_key,
        labels_key=site.labels_key,
        history=result.history,
        ledger=result.ledger,
        settings={"aggregator": secure, **vars(result.settings), "genes in common": len(result.genes)},
    )


def _drop_bookkeeping(adata: AnnData) -> AnnData:
    """Drop what registering the data has left in a copy of them."""
    adata.obs = adata.obs.loc[:, ~adata.obs.columns.str.startswith("_scvi")]
    for key in [key for key in adata.uns if key.startswith("_scvi")]:
        del adata.uns[key]
    return adata


@contextmanager
def _user_errors() -> Iterator[None]:
    """One line and exit code 2 for what the user can mend; anything else is a bug and shows its traceback."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _mendable()):
            raise
        message = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        typer.secho(f"Error: {message}", err=True, fg=typer.colors.RED)
        raise typer.Exit(_BAD_INPUT) from error


def _mendable() -> tuple[type[Exception], ...]:
    """Errors that come of bad input. Importing the federation takes seconds, which commands that need none save."""
    from fedscgen.federation import SiteError
    from fedscgen.secure import AggregationError

    return KeyError, ValueError, OSError, ModuleNotFoundError, SiteError, AggregationError


for command in (commands.init, commands.keys, commands.checklist):
    flower.command()(_user_errors()(command))
