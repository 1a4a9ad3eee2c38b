"""What ``fedscgen featurecloud`` offers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")]) -> None:
    """Write what the image of a FeatureCloud app is built from: Dockerfile, nginx, supervisor and main.py."""
    from fedscgen.featurecloud._image import write_image

    write_image(folder)
    typer.echo(f"{folder / 'README.md'} says how to build it; {folder / 'config.yml'} is an example for clients.")
