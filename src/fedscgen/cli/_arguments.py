"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedscgen.secure import find_aggregator

OVERWRITE = "choose another place or add --overwrite"
"""What to do about an output that exists."""

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
SettingsSource = Annotated[
    str,
    typer.Option(
        "--settings",
        metavar="NAME|FILE.toml",
        help="All settings: default, components (without training), paper (the published federation), or a file as "
        "fedscgen settings prints it. Other options have priority.",
    ),
]
Rounds = Annotated[
    int | None, typer.Option("--rounds", min=0, help="Rounds of training; 0 for principal components alone.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs of every site in a round.")]
Seed = Annotated[int | None, typer.Option(help="Where all random numbers come from; 0 if no settings say otherwise.")]


def _check_aggregator(name: str) -> str:
    """Refuse an unknown name before anything is read."""
    try:
        find_aggregator(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return name


# other packages' are not listed, as loading these may take seconds; an unknown name is answered with all of them
_AGGREGATORS = ". ".join(f"{name}: {find_aggregator(name).summary}" for name in ("plain", "masked", "crypten"))

SecureOption = Annotated[
    str,
    typer.Option(
        callback=_check_aggregator,
        metavar="NAME",
        help=f"How sums over the sites are opened. {_AGGREGATORS}. Or the name of one that another package brings.",
    ),
]
BatchColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--batch-key", help="Column of obs with batches within the sites; repeated, each combination is a batch."
    ),
]
LabelsKey = Annotated[str | None, typer.Option(help="Column of obs with the cell types; cell_type by default.")]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="No cell has a label: align cells without any.")]
Normalize = Annotated[
    bool,
    typer.Option(
        "--normalize", help="Normalise raw counts to 10,000 a cell, and take log1p; logarithms stay as they are."
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Layer with log-normalised expression; X by default. With --prepare, with counts, at sites that have it."
    ),
]
LabelMap = Annotated[
    Path | None,
    typer.Option(
        metavar="labels.toml",
        help="What the federation calls cell types, by the sites' own names; fedscgen check proposes such a file.",
    ),
]
