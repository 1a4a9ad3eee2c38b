"""From cells to latent vectors, to shifts, to corrected cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.model.base import BaseModelClass

from fedscgen._types import LabelStats, LatentShifts, References
from fedscgen.correction import apply_shifts, choose_references, label_stats, latent_shifts
from fedscgen.model._data import DataKeys, check_data, dense_chunks, gene_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from fedscgen.correction import ReferenceKind

logger = logging.getLogger(__name__)

LATENT_KEY = "X_fedscgen"
REENCODED_KEY = "X_fedscgen_reencoded"
CORRECTED_LAYER = "fedscgen_corrected"


class CorrectionMixin(BaseModelClass):
    """Encoding and correction of the registered cells, or of others with the same genes."""

    references: References | None = None
    """Where a federation agreed that each cell type belongs, if the model comes from one."""

    @property
    def genes(self) -> list[str]:
        """Names of the genes, in the network's order."""
        return [str(name) for name in self.keys.modality_of(self.adata).var_names]

    @property
    def keys(self) -> DataKeys:
        """The keys named at set-up."""
        return DataKeys(**self.registry["setup_args"])

    def get_latent_representation(
        self, adata: AnnData | MuData | None = None, indices: Sequence[int] | None = None, batch_size: int = 1024
    ) -> np.ndarray:
        """Mean of the latent posterior.

        Parameters
        ----------
        adata
            Cells to encode; genes are found by name. The registered ones if ``None``.
        indices
            Positions of the cells to encode; all if ``None``.
        batch_size
            Cells that are made dense at a time.

        Returns
        -------
        Shape ``(n_cells, n_latent)``, float32.
        """
        self._check_if_trained(warn=False)
        matrix, columns = self._expression(self.adata if adata is None else adata)
        matrix = matrix if indices is None else matrix[np.asarray(indices)]
        latent = np.empty((matrix.shape[0], self.module.encoder.mean.out_features), dtype=np.float32)
        for rows, chunk in dense_chunks(matrix, columns, batch_size):
            latent[rows] = self._encode(chunk)
        return latent

    def get_label_stats(self, adata: AnnData | MuData | None = None, batch_size: int = 1024) -> LabelStats:
        """Cells and mean latent vector of each batch and cell type. They describe patients' cells: keep them here.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        batch_size
            Cells that are made dense at a time.

        Returns
        -------
        Counts of shape ``(n_batches, n_labels)`` and means of shape ``(n_batches, n_labels, n_latent)``.
        """
        adata = self.adata if adata is None else adata
        return self._label_stats(adata, self.get_latent_representation(adata, batch_size=batch_size))

    def get_references(
        self, adata: AnnData | MuData | None = None, *, kind: ReferenceKind = "dominant", min_cells: int = 1
    ) -> References:
        """Reference of each cell type that two batches hold; see :func:`fedscgen.correction.choose_references`.

        Raises
        ------
        NoSharedLabelError
            No type is held by two batches.
        """
        return choose_references(self.get_label_stats(adata), kind=kind, min_cells=min_cells)

    def get_latent_shifts(self, references: References, adata: AnnData | MuData | None = None) -> LatentShifts:
        """Reference mean minus own mean for each batch and cell type, shape ``(n_batches, n_labels, n_latent)``."""
        return latent_shifts(self.get_label_stats(adata), references)

    def correct(
        self,
        adata: AnnData | MuData | None = None,
        *,
        references: References | None = None,
        shifts: LatentShifts | None = None,
        expression: str | None = CORRECTED_LAYER,
        reencode: bool = False,
        batch_size: int = 1024,
    ) -> AnnData:
        """Move every cell type of every batch to its reference, and decode.

        Parameters
        ----------
        adata
            Cells to correct; genes and keys are found by name. The registered ones if ``None``.
        references
            Where each cell type belongs. By default those that a federation agreed on (:attr:`references`), if the
            model holds any, else the dominant batches' means: scGen's batch removal.
        shifts
            What to add, instead of references: from :meth:`get_latent_shifts`.
        expression
            Where decoded expression goes: a layer's name, ``"X"``, or ``None`` for nowhere. It is dense, of shape
            ``(n_cells, n_genes)``, float32.
        reencode
            Encode the decoded expression once more, into ``obsm["X_fedscgen_reencoded"]``: what the published
            implementation takes for the corrected latent vectors.
        batch_size
            Cells that are made dense at a time.

        Returns
        -------
        A copy with the same cells in the same order and ``obsm["X_fedscgen"]``, the shifted latent vectors, of shape
        ``(n_cells, n_latent)``. Genes that the model doesn't know are left out. Of a MuData, the RNA modality.

        Raises
        ------
        RuntimeError
            The model hasn't been trained.
        ValueError
            There are no cell types, or both ``references`` and ``shifts`` are given.
        NoSharedLabelError
            No references are known, and no cell type is held by two batches.
        """
        adata = self.adata if adata is None else adata
        self._check_correctable(adata, references, shifts)
        latent = self.get_latent_representation(adata, batch_size=batch_size)
        if shifts is None:
            stats = self._label_stats(adata, latent)
            shifts = latent_shifts(stats, references or self.references or choose_references(stats))
        batches, labels = self._codes(adata, shifts.batches, shifts.labels)
        shifted = apply_shifts(latent, batches, labels, shifts)
        corrected = self._copy_for_output(adata)
        corrected.obsm[LATENT_KEY] = shifted
        if expression is not None or reencode:
            self._write_decoded(corrected, shifted, expression, reencode, batch_size)
        return corrected

    def _check_correctable(
        self, adata: AnnData | MuData, references: References | None, shifts: LatentShifts | None
    ) -> None:
        self._check_if_trained(warn=False)
        if self.keys.labels_key is None:
            raise ValueError("correction needs cell types: set the data up with labels_key=...")
        if references is not None and shifts is not None:
            raise ValueError("pass either references or shifts, not both: shifts are made from references")
        check_data(adata, self.keys)

    def _write_decoded(
        self, corrected: AnnData, latent: np.ndarray, expression: str | None, reencode: bool, batch_size: int
    ) -> None:
        columns = gene_columns(corrected.var_names, self.genes)
        decoded = np.empty(corrected.shape, dtype=np.float32) if expression is not None else None
        if reencode:
            corrected.obsm[REENCODED_KEY] = np.empty_like(latent)
        for rows, chunk in dense_chunks(latent, None, batch_size):
            genes = self._decode(chunk)
            if decoded is not None:
                decoded[rows, slice(None) if columns is None else columns] = genes
            if reencode:
                corrected.obsm[REENCODED_KEY][rows] = self._encode(genes)
        if expression == "X":
            corrected.X = decoded
        elif expression is not None:
            corrected.layers[expression] = decoded

    def _copy_for_output(self, adata: AnnData | MuData) -> AnnData:
        rna = self.keys.modality_of(adata)
        columns = gene_columns(rna.var_names, self.genes)
        if columns is None or len(columns) == rna.n_vars:
            corrected = rna.copy()
        else:
            logger.info("%d genes that the model doesn't know are left out", rna.n_vars - len(columns))
            corrected = rna[:, np.sort(columns)].copy()
        for key in (self.keys.batch_key, self.keys.labels_key):
            if key is not None and key not in corrected.obs:
                corrected.obs[key] = self.keys.categories_of(adata, key)
        return corrected

    def _expression(self, adata: AnnData | MuData) -> tuple[Any, np.ndarray | None]:
        """The matrix, and the columns of it that are the model's genes."""
        columns = None
        if adata is not self.adata:
            columns = gene_columns(self.keys.modality_of(adata).var_names, self.genes)
        return self.keys.expression_of(adata), columns

    def _label_stats(self, adata: AnnData | MuData, latent: np.ndarray) -> LabelStats:
        batches, labels = self._categories(adata)
        return label_stats(latent, batches.codes, labels.codes, list(batches.categories), list(labels.categories))

    def _categories(self, adata: AnnData | MuData) -> tuple[pd.Categorical, pd.Categorical]:
        keys = self.keys
        return keys.categories_of(adata, keys.batch_key), keys.categories_of(adata, keys.labels_key)

    def _codes(self, adata: AnnData | MuData, batches: Sequence[str], labels: Sequence[str]) -> list[np.ndarray]:
        """Positions of each cell's batch and type in these names; -1 where they lack it."""
        pairs = zip(self._categories(adata), (batches, labels), strict=True)
        return [cells.set_categories(list(names)).codes.astype(int) for cells, names in pairs]

    def _encode(self, chunk: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.module.inference(torch.from_numpy(chunk))["qz"].loc.cpu().numpy()

    def _decode(self, latent: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.module.generative(torch.from_numpy(latent))["px"].cpu().numpy()
