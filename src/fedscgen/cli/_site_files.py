"""How the file of each site is read, which others' differ from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedscgen._files import check_readable

if TYPE_CHECKING:
    from anndata import AnnData

Modality = Annotated[
    str | None,
    typer.Option(
        help="Which modality of .h5mu files has the expression, in those that hold it; rna or the only one by default."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="OWN=COMMON",
        help="A column of obs that other sites call COMMON, such as celltype=cell_type; can be repeated.",
    ),
]
Transposed = Annotated[
    list[str] | None,
    typer.Option("--transpose", metavar="NAME", help="A site whose file holds genes x cells; can be repeated."),
]


@dataclass(frozen=True)
class Reading:
    """What some files hold otherwise than others.

    Parameters
    ----------
    modality
        The one with the expression, of files that hold it.
    columns
        What other sites call columns of ``obs``, by a site's own names.
    transposed
        Sites whose files hold genes x cells.
    """

    modality: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()

    @classmethod
    def of(cls, modality: str | None, columns: list[str] | None, transposed: list[str] | None) -> Reading:
        """Read the command line's options.

        Raises
        ------
        ValueError
            One of a column isn't OWN=COMMON.
        """
        common = {}
        for text in columns or ():
            own, _, name = text.partition("=")
            if not own or not name:
                raise ValueError(f"--column {text}: write OWN=COMMON, such as celltype=cell_type")
            common[own] = name
        return cls(modality, common, tuple(transposed or ()))

    def read(self, name: str, path: Path) -> AnnData:
        """The site's cells."""
        from fedscgen._read_cells import list_modalities, read_cells
        from fedscgen.prepare import read_raw

        modality = self.modality if self.modality in list_modalities(path) else None
        read = read_cells if path.suffix in (".h5ad", ".h5mu", ".zarr") else read_raw
        adata = read(path, modality=modality)
        if name in self.transposed:
            adata = adata.T.copy()
        adata.obs = adata.obs.rename(columns=self._find_columns(adata))
        return adata

    def _find_columns(self, adata: AnnData) -> dict[str, str]:
        return {own: name for own, name in self.columns.items() if own in adata.obs and name not in adata.obs}

    def check(self, sources: Mapping[str, Path]) -> None:
        """Refuse what concerns no file.

        Raises
        ------
        ValueError
            No file has the modality, or no site is called so.
        """
        from fedscgen._read_cells import list_modalities

        if self.modality is not None and not any(self.modality in list_modalities(path) for path in sources.values()):
            raise ValueError(
                f"--modality {self.modality}: no .h5mu file has it; leave it out, or name one that is there"
            )
        for name in self.transposed:
            if name not in sources:
                raise ValueError(f"--transpose {name}: no site is called so; there are {', '.join(sources)}")


def read_sites(
    sources: Sequence[str], how: Reading | None = None, unread: dict[str, str] | None = None
) -> dict[str, AnnData]:
    """Cells by site, each from a file or folder; a site is called like it, or as ``NAME=FILE`` says.

    With ``unread``, why a site's can't be read is put there, and the others go on.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError, ValueError
        Something can't be read, or two sites have one name.
    """
    how = Reading() if how is None else how
    files: dict[str, Path] = {}
    for source in sources:
        name, path = _find_file(source)
        if not name.strip():
            raise ValueError(f"{source!r} names no site: write NAME={path}")
        if name in files:
            raise ValueError(f"two sites are called {name!r}: write NAME={path}, with another name")
        files[name] = path
    how.check(files)
    sites = {}
    for name, path in files.items():
        try:
            sites[name] = how.read(name, path)
        except (ModuleNotFoundError, ValueError) as error:
            if unread is None:
                raise
            unread[name] = str(error)
    return sites


def refuse_transposed(example: str) -> None:
    """Refuse data in which a cell is called like a gene.

    Raises
    ------
    ValueError
        There is such a name.
    """
    from fedscgen._words import TURN, TURNED

    if example:
        raise ValueError(f"{TURNED}, as a row is called {example!r}: {TURN}")


def check_sources(sources: Sequence[str]) -> None:
    """Refuse files that aren't there, hold nothing or are given twice, before what could read them is loaded."""
    given: dict[Path, str] = {}
    for source in sources:
        path = _find_file(source)[1]
        check_readable(path)
        if path.resolve() in given:
            raise ValueError(f"{given[path.resolve()]} and {source} are one file: name each site's own, once")
        given[path.resolve()] = source


def _find_file(source: str) -> tuple[str, Path]:
    """The site's name and its file."""
    name, equals, file = ("", "", source) if Path(source).exists() else source.rpartition("=")
    return (name if equals else Path(file).resolve().stem), Path(file)
