"""Where cells belong: found among the registered cells, or brought by a federation."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fedscgen._options import check_share, check_whole
from fedscgen._types import MAX_MISSING_GENES, LatentShifts, References
from fedscgen.correction import LABEL_NOISE, Landmarks, NoSharedLabelError, find_own_references, latent_shifts
from fedscgen.model._latent_mixin import LatentMixin

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from fedscgen.correction import ReferenceKind


class ReferencesMixin(LatentMixin):
    """References of batches that are at hand, and which of the given cells are registered ones."""

    references: References | Landmarks | None = None
    """Where cells belong: as a federation agreed, if the model comes from one, or as :meth:`train` found."""

    def get_references(
        self,
        adata: AnnData | MuData | None = None,
        *,
        kind: ReferenceKind = "landmarks",
        min_cells: int = 1,
        label_noise: float = LABEL_NOISE,
        seed: int = 0,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> References | Landmarks:
        """Where the cells of these batches belong, found with all of them at hand.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        kind
            ``"landmarks"``: places that all batches have in common, for cells with and without a label; see
            :func:`fedscgen.correction.find_landmarks`. ``"dominant"`` or ``"mean"``: one place for each cell type that
            two batches hold; see :func:`fedscgen.correction.choose_references`.
        min_cells
            Of types, and of landmarks, with fewer cells in a batch, that batch tells nothing.
        label_noise
            For landmarks: share of given labels that may be wrong. Above 0, a cell's own label is weighed against the
            classifier, and one that it contradicts counts less.
        seed
            Of the places where landmarks begin.
        max_missing_genes
            As in :meth:`get_latent_representation`.

        Raises
        ------
        ValueError
            ``kind`` is no choice, ``min_cells`` is below 1, ``label_noise`` no share below 1, or ``seed`` below 0.
        NoSharedLabelError
            No type is held by two batches; with landmarks, only if all cells have a label or there is one batch.

        Warns
        -----
        UserWarning
            No type is held by two batches, and landmarks are found without labels, since some cells have none.
        """
        check_whole("min_cells", min_cells, 1)
        check_share("label_noise", label_noise)
        check_whole("seed", seed, 0)
        adata = self.adata if adata is None else adata
        latent = self.get_latent_representation(adata, max_missing_genes=max_missing_genes)
        return find_own_references(
            latent, *self._categories(adata), kind=kind, min_cells=min_cells, label_noise=label_noise, seed=seed
        )

    def get_latent_shifts(
        self,
        references: References,
        adata: AnnData | MuData | None = None,
        *,
        shrink: bool = False,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> LatentShifts:
        """Reference mean minus own mean for each batch and cell type, shape ``(n_batches, n_labels, n_latent)``.

        ``shrink`` draws shifts of few cells towards the batch's overall one; see
        :func:`fedscgen.correction.latent_shifts`. ``max_missing_genes`` is as in :meth:`get_latent_representation`.
        """
        if isinstance(references, Landmarks):
            raise ValueError(
                "landmarks have no shift for each type: pass references by type, such as get_references(kind='mean')"
            )
        stats = self.get_label_stats(adata, max_missing_genes=max_missing_genes)
        return latent_shifts(stats, references, shrink=shrink)

    def _keep_references(self) -> None:
        """Note where the registered cells belong, if two batches have something in common."""
        with warnings.catch_warnings(), suppress(NoSharedLabelError):  # correct() says so where it matters
            warnings.simplefilter("ignore", UserWarning)
            self.references = self.get_references()

    def _find_registered(
        self, adata: AnnData | MuData, latent: np.ndarray, batches: pd.Categorical, labels: pd.Categorical, size: int
    ) -> np.ndarray | None:
        """Rows of these cells among the registered ones, of which they are a part, with this batch and label; or None.

        Which latent vectors they have, in their order, is said by ``latent``.
        """
        if adata is self.adata or not 0 < adata.n_obs < self.adata.n_obs:
            return None
        rows: np.ndarray = self.adata.obs_names.get_indexer(adata.obs_names)
        own = self._categories(self.adata) if (rows >= 0).all() else ()
        for registered, given in zip(own, (batches, labels), strict=False):
            if not pd.Series(registered[rows], dtype=object).equals(pd.Series(given, dtype=object)):
                return None
        there = self.get_latent_representation(indices=list(rows), batch_size=size) if own else None
        return rows if there is not None and np.allclose(there, latent, atol=1e-5) else None
