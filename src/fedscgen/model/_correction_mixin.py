"""From cells to latent vectors, to shifts, to corrected cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.model.base import BaseModelClass

from fedscgen._data import (
    CELL_TYPE_KEY,
    CORRECTED_LAYER,
    LATENT_KEY,
    REENCODED_KEY,
    DataKeys,
    check_data,
    dense_chunks,
    gene_columns,
)
from fedscgen._types import LabelStats, LatentShifts, References, check_choice
from fedscgen.correction import (
    Unlabeled,
    apply_shifts,
    choose_references,
    label_stats,
    latent_shifts,
    mean_shifts,
    predict_labels,
)
from fedscgen.model._expression import move_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from fedscgen.correction import ReferenceKind

logger = logging.getLogger(__name__)


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
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int = 1024,
        give_mean: bool = True,
    ) -> np.ndarray:
        """Mean of the latent posterior, or a sample of it.

        Parameters
        ----------
        adata
            Cells to encode; genes are found by name. The registered ones if ``None``.
        indices
            Positions of the cells to encode; all if ``None``.
        batch_size
            Cells that are made dense at a time.
        give_mean
            ``False`` gives one sample per cell, with torch's random numbers.

        Returns
        -------
        Shape ``(n_cells, n_latent)``, float32.
        """
        self._check_if_trained(warn=False)
        matrix, columns = self._expression(self.adata if adata is None else adata)
        matrix = matrix if indices is None else matrix[np.asarray(indices)]
        latent = np.empty((matrix.shape[0], self.module.encoder.mean.out_features), dtype=np.float32)
        for rows, chunk in dense_chunks(matrix, columns, batch_size):
            latent[rows] = self._encode(chunk, give_mean)
        return latent

    def get_label_stats(self, adata: AnnData | MuData | None = None, batch_size: int = 1024) -> LabelStats:
        """Cells, and mean and variance in latent space, of each batch and cell type.

        They describe patients' cells: keep them here. Cells without a label count nowhere.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        batch_size
            Cells that are made dense at a time.

        Returns
        -------
        Counts and variances of shape ``(n_batches, n_labels)``, means of shape ``(n_batches, n_labels, n_latent)``.
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

    def get_latent_shifts(
        self, references: References, adata: AnnData | MuData | None = None, *, shrink: bool = False
    ) -> LatentShifts:
        """Reference mean minus own mean for each batch and cell type, shape ``(n_batches, n_labels, n_latent)``.

        ``shrink`` draws shifts of few cells towards the batch's overall one; see
        :func:`fedscgen.correction.latent_shifts`.
        """
        return latent_shifts(self.get_label_stats(adata), references, shrink=shrink)

    def correct(
        self,
        adata: AnnData | MuData | None = None,
        *,
        references: References | None = None,
        shifts: LatentShifts | None = None,
        shrink: bool = False,
        unlabeled: Unlabeled = "knn",
        expression: str | None = CORRECTED_LAYER,
        denoise: bool = False,
        reencode: bool = False,
        batch_size: int = 1024,
    ) -> AnnData:
        """Move every cell type of every batch to its reference, in latent space and in expression.

        Parameters
        ----------
        adata
            Cells to correct; genes and keys are found by name. The registered ones if ``None``.
        references
            Where each cell type belongs. By default those that a federation agreed on (:attr:`references`), if the
            model holds any, else the dominant batches' means: scGen's batch removal.
        shifts
            What to add, instead of references: from :meth:`get_latent_shifts`.
        shrink
            Draw shifts of few cells towards the batch's overall one; see :func:`fedscgen.correction.latent_shifts`.
        unlabeled
            How cells without a label move. ``"knn"``: by the shift of the type that most of the 15 nearest labelled
            cells of their batch have, in latent space before correction. ``"mean"``: by the mean shift of their
            batch's labelled cells of types that have a reference. ``"leave"``: not at all. A batch without any
            labelled cell stays where it is.
        expression
            Where corrected expression goes: a layer's name, ``"X"``, or ``None`` for nowhere. Its shape is
            ``(n_cells, n_genes)``, its type float32.
        denoise
            ``False``: a cell keeps its own expression, plus what its shift changes in decoded expression. Genes that
            a cell doesn't express stay at zero, others fall to zero at most, and a cell that doesn't move keeps every
            value; sparse expression stays sparse. ``True``: what the shifted latent vector decodes to, as in scGen,
            for all genes and dense.
        reencode
            Encode the decoded expression once more, into ``obsm["X_fedscgen_reencoded"]``: what the published
            implementation takes for the corrected latent vectors.
        batch_size
            Cells that are made dense at a time.

        Returns
        -------
        A copy with the same cells in the same order and ``obsm["X_fedscgen"]``, the shifted latent vectors, of shape
        ``(n_cells, n_latent)``. Genes that the model doesn't know are left out. Of a MuData, the RNA modality. If the
        model was set up with an ``unlabeled_category``, ``"knn"`` adds ``obs["fedscgen_cell_type"]``: the cells' own
        labels, the predicted ones of cells without, and NaN in a batch without any.

        Raises
        ------
        RuntimeError
            The model hasn't been trained.
        ValueError
            There are no cell types, ``unlabeled`` is none of the three, both ``references`` and ``shifts`` are given,
            or ``shifts`` are given and should be shrunk.
        NoSharedLabelError
            No references are known, and no cell type is held by two batches.

        Warns
        -----
        UserWarning
            As in :meth:`FedSCGEN.setup_anndata`.
        """
        check_choice(unlabeled, Unlabeled, "treatment of unlabeled cells")
        adata = self.adata if adata is None else adata
        self._check_correctable(adata, references, shifts, shrink)
        latent = self.get_latent_representation(adata, batch_size=batch_size)
        if shifts is None:
            stats = self._label_stats(adata, latent)
            shifts = latent_shifts(stats, references or self.references or choose_references(stats), shrink=shrink)
        corrected = self._copy_for_output(adata)
        batches, labels = self._categories(adata)
        if unlabeled == "knn" and self.keys.unlabeled_category is not None:
            codes = predict_labels(latent, batches.codes, labels.codes)
            labels = corrected.obs[CELL_TYPE_KEY] = pd.Categorical.from_codes(codes, labels.categories)
        shifted = _shift_cells(latent, batches, labels, shifts, by_mean=unlabeled == "mean")
        corrected.obsm[LATENT_KEY] = shifted
        if expression is not None:
            self._write_expression(corrected, latent, expression, denoise, batch_size)
        if reencode:
            encoded = [self._encode(self._decode(chunk)) for _, chunk in dense_chunks(shifted, None, batch_size)]
            corrected.obsm[REENCODED_KEY] = np.concatenate(encoded)
        return corrected

    def _check_correctable(
        self, adata: AnnData | MuData, references: References | None, shifts: LatentShifts | None, shrink: bool
    ) -> None:
        self._check_if_trained(warn=False)
        if self.keys.labels_key is None:
            raise ValueError("correction needs cell types: set the data up with labels_key=...")
        if references is not None and shifts is not None:
            raise ValueError("pass either references or shifts, not both: shifts are made from references")
        if shifts is not None and shrink:
            raise ValueError("given shifts are added as they are: shrink them in get_latent_shifts(..., shrink=True)")
        check_data(adata, self.keys)

    def _write_expression(
        self, corrected: AnnData, latent: np.ndarray, key: str, denoise: bool, batch_size: int
    ) -> None:
        genes = gene_columns(pd.Index(self.genes), list(corrected.var_names))

        def decode(vectors: np.ndarray) -> np.ndarray:
            decoded = self._decode(vectors)
            return decoded if genes is None else decoded[:, genes]

        shifted = corrected.obsm[LATENT_KEY]
        if denoise:
            matrix = np.empty(corrected.shape, dtype=np.float32)
            for rows, chunk in dense_chunks(shifted, None, batch_size):
                matrix[rows] = decode(chunk)
        else:
            matrix = move_expression(self.keys.expression_of(corrected), latent, shifted, decode, batch_size)
        if key == "X":
            corrected.X = matrix
        else:
            corrected.layers[key] = matrix

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
                corrected.obs[key] = self.keys.column_of(adata, key)
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
        return keys.categories_of(adata, keys.batch_key), keys.labels_of(adata)

    def _encode(self, chunk: np.ndarray, give_mean: bool = True) -> np.ndarray:
        with torch.inference_mode():
            posterior = self.module.inference(torch.from_numpy(chunk))["qz"]
            vectors: torch.Tensor = posterior.loc if give_mean else posterior.sample()
        return vectors.cpu().numpy()

    def _decode(self, latent: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            decoded: torch.Tensor = self.module.generative(torch.from_numpy(latent))["px"]
        return decoded.cpu().numpy()


def _shift_cells(
    latent: np.ndarray, batches: pd.Categorical, labels: pd.Categorical, shifts: LatentShifts, *, by_mean: bool
) -> np.ndarray:
    """Latent vectors with their shifts; ``by_mean`` moves cells without a label by their batch's mean shift."""
    batch_codes, label_codes = _positions(batches, shifts.batches), _positions(labels, shifts.labels)
    shifted = apply_shifts(latent, batch_codes, label_codes, shifts)
    if by_mean:
        cells = (labels.codes < 0) & (batch_codes >= 0)
        shifted[cells] += mean_shifts(shifts, batch_codes, label_codes)[batch_codes[cells]]
    return shifted


def _positions(cells: pd.Categorical, names: Sequence[str]) -> np.ndarray:
    """Position of each cell's batch or type among these names; -1 where they lack it."""
    codes: np.ndarray = cells.set_categories(list(names)).codes.astype(int)
    return codes
