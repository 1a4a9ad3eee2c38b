"""The published data sets: what is known of each before it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from fedscgen.datasets._inclusion import Inclusion


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """One of the data sets of the paper (Bakhtiari et al. 2025, after Tran et al. 2020).

    Parameters
    ----------
    name
        Name of the data set, and of its file in the record, which is ``NAME.h5ad``.
    n_batches
        Batches, each of which is a site.
    n_cells
        About how many cells there are; ``None`` where no source states it.
    minor_types
        Cell types that the scenarios ``"dropped"`` and ``"combined"`` leave out or merge. A data set without any takes
        no part in these.
    secure
        Whether the paper ran it with secure aggregation as well.
    """

    name: str
    n_batches: int
    n_cells: int | None = None
    minor_types: tuple[str, ...] = ()
    secure: bool = True

    @property
    def inclusions(self) -> tuple[Inclusion, ...]:
        """The inclusion scenarios in which it takes part."""
        return get_args(Inclusion) if self.minor_types else ("all",)


_PUBLISHED = (
    PublishedDataset(name="HumanDendriticCells", n_batches=2),
    PublishedDataset(
        name="MouseCellAtlas",
        n_batches=2,
        n_cells=6_954,
        minor_types=("Epithelial", "Dendritic", "Smooth-muscle", "NK"),
    ),
    PublishedDataset(
        name="HumanPancreas",
        n_batches=5,
        n_cells=14_767,
        minor_types=(
            "stellate",
            "endothelial",
            "mesenchymal",
            "macrophage",
            "mast",
            "epsilon",
            "schwann",
            "t_cell",
            "MHC class II",
        ),
    ),
    PublishedDataset(
        name="PBMC",
        n_batches=2,
        minor_types=("Plasmacytoid dendritic cell", "Megakaryocyte", "Hematopoietic stem cell"),
    ),
    PublishedDataset(name="CellLine", n_batches=3, n_cells=9_531),
    PublishedDataset(
        name="MouseRetina",
        n_batches=2,
        n_cells=71_638,
        minor_types=(
            "ganglion",
            "vascular_endothelium",
            "horizontal",
            "fibroblasts",
            "microglia",
            "pericytes",
            "astrocytes",
        ),
    ),
    PublishedDataset(
        name="MouseBrain",
        n_batches=2,
        minor_types=("Olfactory ensheathing cells", "Choroid_plexus", "Mitotic"),
        secure=False,
    ),
    PublishedDataset(
        name="MouseHematopoieticStemProgenitorCells",
        n_batches=2,
        minor_types=("MPP", "LTHSC", "LMPP", "Unsorted"),
    ),
)

DATASETS: Mapping[str, PublishedDataset] = MappingProxyType({dataset.name: dataset for dataset in _PUBLISHED})
"""The eight published data sets by name."""


def find_dataset(name: str) -> PublishedDataset:
    """The data set of this name; a ``ValueError`` lists the names if it isn't published."""
    if name not in DATASETS:
        raise ValueError(
            f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}; the demo comes from demo_data or "
            "load_dataset('demo'), a file of your own from load_file"
        )
    return DATASETS[name]
