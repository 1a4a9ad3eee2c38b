"""``fedscgen benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedscgen.cli._errors import user_errors

_FAILED, _INTERRUPTED = 1, 130


def run(
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
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per task.")] = 1,
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

    with user_errors():
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


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of results, of a run that may still go on.")],
) -> None:
    """Write tables, figures and report.html of what is finished so far."""
    from fedscgen.benchmark import write_tables
    from fedscgen.benchmark.report import write_benchmark_report

    with user_errors():
        write_tables(folder)
        write_benchmark_report(folder)
    typer.echo(f"Open {folder / 'report.html'} in a browser.")


def spec(
    name: Annotated[str | None, typer.Argument(help="smoke, quality or paper; a list if left out.")] = None,
) -> None:
    """Print a specification that comes with the package, to begin your own with."""
    from fedscgen.benchmark import standard_specs

    specs = standard_specs()
    with user_errors():
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
