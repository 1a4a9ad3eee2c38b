"""How counts are prepared, as a value that checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedscgen._options import check_fields, check_whole

Namespace = Literal["own", "symbol", "ensembl"]


@dataclass(frozen=True)
class PrepareOptions:
    """How a site's counts become cells that a federation can train on. The sites agree on all but ``layer``.

    Parameters
    ----------
    layer
        Where the counts are: ``"X"``, ``"raw"`` or the name of a layer. None: in the first of ``X``,
        ``layers["counts"]`` and ``raw`` that holds whole numbers.
    genes
        How the federation calls its genes. ``"symbol"`` or ``"ensembl"``: ids without their version. ``"own"``: as
        the site does, but for versions of Ensembl ids.
    target_sum
        Molecules that each cell is normalised to before ``log1p`` is taken.
    min_genes
        Fewest genes that are detected in a cell that is kept.
    max_genes
        Most of them. None: any number.
    max_mito
        Largest share of mitochondrial molecules of a cell that is kept. None: any share.
    ignore_case
        Whether a symbol that the gene table lacks is found there by one that differs by upper and lower case. For data
        of the table's species alone, since symbols of mouse and human differ by case.

    Raises
    ------
    ValueError
        A value is of the wrong type, out of range or no choice; the message names it.
    """

    layer: str | None = None
    genes: Namespace = "own"
    target_sum: float = 1e4
    min_genes: int = 200
    max_genes: int | None = None
    max_mito: float | None = 0.2
    ignore_case: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole("min_genes", self.min_genes, 0)
        if self.max_genes is not None:
            check_whole("max_genes", self.max_genes, max(self.min_genes, 1))
        if not self.target_sum > 0:
            raise ValueError(f"target_sum={self.target_sum}: must be above 0")
        if self.max_mito is not None and not 0 <= self.max_mito <= 1:
            raise ValueError(f"max_mito={self.max_mito}: a share, from 0 to 1")
