"""What a federation's training begins with, where that isn't random."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fedscgen.aggregation import check_update
from fedscgen.federation._plan import hash_arrays
from fedscgen.model import read_model, read_published_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedscgen._types import NamedArrays

_PUBLISHED, _GENES = "model_params.pt", "var_names.csv"


@dataclass(frozen=True)
class InitialModel:
    """Weights from a file, which the coordinator reads and no site does.

    Parameters
    ----------
    path
        Where they come from.
    weights
        By name.
    genes
        The genes that they are for, in their order. ``None``: the file doesn't say; they have to be those that the
        sites agree on, in the first site's order.
    """

    path: Path
    weights: NamedArrays = field(repr=False)
    genes: list[str] | None = field(repr=False)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read weights, and the genes that they are for.

        Parameters
        ----------
        path
            The folder of a model that this package or scArches has saved; or a file that
            :func:`~fedscgen.model.read_published_weights` reads. Genes of the latter two are those of the file
            ``var_names.csv`` beside the weights, if there is one.

        Raises
        ------
        FileNotFoundError
            There is no such folder or file.
        CheckpointError
            There is something else, or it is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"init_model={path}: there is no such folder or file")
        path = path / _PUBLISHED if (path / _PUBLISHED).exists() else path
        if path.is_dir():
            saved = read_model(path)
            return cls(path, saved.weights, saved.genes)
        names = path.with_name(_GENES)
        genes = names.read_text(encoding="utf-8").splitlines() if names.exists() else None
        return cls(path, read_published_weights(path), genes)

    @property
    def sha256(self) -> str:
        """What a plan says of the weights, and a site's policy allows, 64 hexadecimal digits."""
        return hash_arrays(self.weights)

    def choose_genes(self, common: Sequence[str]) -> list[str]:
        """The genes to work on, among those that the sites agree on.

        Raises
        ------
        ValueError
            The sites lack some of the model's genes; the message names them.
        """
        if self.genes is None:
            return list(common)
        missing = sorted(set(self.genes).difference(common))
        if missing:
            raise ValueError(
                f"init_model={self.path} has {len(self.genes)} genes, of which the sites don't share {len(missing)}: "
                f"{', '.join(missing[:5])}; choose a model of genes that all sites hold"
            )
        return self.genes

    def fit_to(self, expected: NamedArrays) -> NamedArrays:
        """The weights, once they are known to fit a network's.

        Raises
        ------
        ValueError
            Names or shapes differ from the expected ones, or a value is NaN or inf.
        """
        remedy = "choose the settings of the model, and the genes, that it was made with"
        check_update(self.weights, expected, who=f"init_model={self.path}", remedy=remedy)
        return dict(self.weights)
