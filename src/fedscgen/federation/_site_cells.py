"""What a site's cells answer to a federation's questions about batches and cell types."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from fedscgen._data import CELL_TYPE_KEY, TYPES_KEY, working_copy
from fedscgen._entries import check_length
from fedscgen._normalize import contradicts, sum_cells
from fedscgen.correction import (
    NO_REFERENCE,
    LandmarkSums,
    NoSharedLabelError,
    align_labels,
    check_moves,
    choose_references,
    expect_cells,
    find_few,
    find_own_references,
    label_positions,
    label_stats_of,
    merge_references,
)
from fedscgen.federation._agreement import Description
from fedscgen.federation._padding import padded_copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from anndata import AnnData

    from fedscgen._types import NamedArrays, References
    from fedscgen.correction import Landmarks, ReferenceKind
    from fedscgen.federation._policy import LabelNames
    from fedscgen.federation._settings import FederationSettings, SiteOptions

logger = logging.getLogger(__name__)


class SiteCells:
    """A site's cells, and under which names their types travel.

    Latent vectors that methods take are of all these cells, in their order: shape ``(n_cells, n_latent)``.
    """

    def __init__(self, adata: AnnData, options: SiteOptions, names: LabelNames) -> None:
        self.adata = adata
        self.keys = options.keys
        self._options = options
        self._names = names

    def copy_genes(self, genes: Sequence[str], *, pad: bool) -> AnnData:
        """What a model of these genes needs of the cells; with ``pad``, zeros of those that the site lacks."""
        return (padded_copy if pad else working_copy)(self.adata, self.keys, genes)

    def check_sums(self, target_sum: float | None) -> None:
        """Refuse a federation of cells that were normalised to another number of molecules.

        Raises
        ------
        ValueError
            The message names both numbers.
        """
        if target_sum is None:
            return
        sums = low, median, high = sum_cells(self.keys.expression_of(self.adata))
        if contradicts(sums, target_sum):
            raise ValueError(
                f"target_sum={target_sum:,g}, and a cell's molecules (expm1 of {self.keys.where}) sum to {median:,.0f} "
                f"here, from {low:,.0f} to {high:,.0f}: normalise the counts to {target_sum:g}, as fedscgen prepare "
                f"--target-sum {target_sum:g} does, or have the federation use the number of these cells"
            )

    def describe(self, settings: FederationSettings) -> Description:
        """Genes that may be used, and the cell types that have enough cells in a batch for references of this kind."""
        reference = settings.reference
        if self.keys.labels_key is None and reference != "landmarks":
            raise ValueError(
                f"reference={reference!r} needs cell types at every site: name labels_key, or use landmarks"
            )
        (batches, labels), counts = self._categories, self._count_cells()
        labelled = labels.codes >= 0
        if reference == "landmarks":
            counts = expect_cells(counts, np.bincount(batches.codes, minlength=len(counts)))
        reported = labels.categories[(counts >= self._options.min_cells).any(axis=0)]
        genes = self._find_genes(settings.gene_list)
        on_the_wire = sorted(map(self._names.on_the_wire, reported))  # as their order would tell something of them
        check_length("gene", genes)
        check_length("cell type", on_the_wire)
        return Description(
            genes=genes,
            labels=on_the_wire,
            hashed=self._names.are_hashed,
            complete=bool(labelled.all()),
            min_holders=self._options.min_holders,
            n_cells_at_most=self.n_cells_at_most,
        )

    def _find_genes(self, wanted: Sequence[str]) -> list[str]:
        """Names of the site's genes; of a list, if there is one, those that it holds.

        Raises
        ------
        ValueError
            It holds none of the list.
        """
        held = [str(name) for name in self.adata.var_names]
        if not wanted:
            return held
        listed = set(wanted)
        genes = [name for name in held if name in listed]
        if not genes:
            raise ValueError(
                f"gene_list: of its {len(wanted)} genes (first: {wanted[0]!r}) none is here (first: {held[0]!r}): use "
                "the same gene names everywhere; fedscgen prepare translates them"
            )
        return genes

    @property
    def n_cells_at_most(self) -> int:
        """What is announced of their number: the next power of two."""
        n_cells: int = self.adata.n_obs
        return 1 << (n_cells - 1).bit_length()

    def own_names(self, labels: Iterable[str]) -> list[str]:
        """What the site calls the federation's cell types."""
        return self._names.at_the_site(labels, self._categories[1].categories)

    def sum_means(self, latent: np.ndarray, labels: Iterable[str], reference: ReferenceKind) -> NamedArrays:
        """Counts and mean latent vectors of these cell types, from batches with enough cells of them."""
        stats = align_labels(label_stats_of(latent, *self._categories), self.own_names(labels))
        counts = np.where(stats.counts >= self._options.min_cells, stats.counts, 0).astype(np.float64)  # (B, L)
        if reference == "mean":
            return {"counts": counts.sum(axis=0), "sums": np.einsum("bl,bld->ld", counts, stats.means)}
        dominant, columns = counts.argmax(axis=0), np.arange(counts.shape[1])
        means = np.where(counts[..., None] > 0, stats.means, 0.0)  # (B, L, n_latent); those of few cells stay here
        return {"keys": counts[dominant, columns], "values": means[dominant, columns]}

    def begin_landmarks(self, latent: np.ndarray, labels: Iterable[str]) -> LandmarkSums:
        """What answers all questions while landmarks of these cell types are sought."""
        batches, own = self._categories
        names = self.own_names(labels)
        told = ~find_few(batches.codes, own.codes, self._options.min_cells)
        codes = label_positions(own, names)[told]
        return LandmarkSums(latent[told], batches.codes[told], codes, len(names), self._options.min_cells)

    def add_own_references(
        self, references: References, latent: np.ndarray, settings: FederationSettings
    ) -> References | Landmarks:
        """Add references of the site's own choice for types that only its batches share.

        A site that is alone has references of its own batches, as the federation's settings want them.
        """
        alone, kind = not references.labels, settings.reference
        try:
            if alone:
                seed, noise = settings.find_seed(), settings.label_noise
                return find_own_references(latent, *self._categories, kind=kind, label_noise=noise, seed=seed)
            return merge_references(references, choose_references(label_stats_of(latent, *self._categories)))
        except NoSharedLabelError as error:
            if alone:
                logger.warning("cells stay where they are: %s", error)
            return references

    def explain_moves(self, corrected: AnnData, who: str) -> None:
        """Complete the table of what moved by what the site knows of its part in it, and warn of what stays."""
        if TYPES_KEY not in corrected.uns:
            return
        table, few = corrected.uns[TYPES_KEY], self._options.min_cells
        small = (table["why"] == NO_REFERENCE) & (table["n_cells"] < few)
        table.loc[small, "why"] = f"{NO_REFERENCE}, and here are fewer than {few} cells"
        check_moves(table, allow_unaligned=True, who=who)

    def warn_of_hashes(self, corrected: AnnData, labels: Iterable[str], who: str) -> None:
        """Say which of these types corrected cells are called by their hash, since the site never had their names."""
        if not self._names.are_hashed or CELL_TYPE_KEY not in corrected.obs:
            return
        own = map(self._names.on_the_wire, self._categories[1].categories)
        nameless = sorted(set(labels).difference(own).intersection(corrected.obs[CELL_TYPE_KEY]))
        if nameless:
            warnings.warn(
                f"{who}obs[{CELL_TYPE_KEY!r}] has {len(nameless)} cell types by their hash (first: {nameless[0]!r}): "
                "this site has no cell of that name, and no name can be found from its hash. Ask another site for its "
                "names of types, and rename those whose hash is here; the guide to deployment shows how",
                UserWarning,
                stacklevel=2,
            )

    def _count_cells(self) -> np.ndarray:
        """Cells of each type in each batch, by their labels: shape ``(n_batches, n_types)``."""
        batches, labels = self._categories
        counts = np.zeros((len(batches.categories), len(labels.categories)), dtype=int)
        labelled = labels.codes >= 0
        np.add.at(counts, (batches.codes[labelled], labels.codes[labelled]), 1)
        return counts

    @property
    def _categories(self) -> tuple[pd.Categorical, pd.Categorical]:
        """Each cell's batch and label."""
        return self.keys.categories_of(self.adata, self.keys.batch_key), self.keys.labels_of(self.adata)


@contextmanager
def silence_repeated_warnings() -> Iterator[None]:
    """Leave out what was said of the site's data when the client was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
