"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from fedscgen.secure import AggregatorName

OVERWRITE = "choose another place or add --overwrite"
"""What to do about an output that exists."""

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
