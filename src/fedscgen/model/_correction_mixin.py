"""From latent vectors to references, to corrected cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fedscgen._data import (
    CORRECTED_LAYER,
    LATENT_KEY,
    MOVED_KEY,
    PREDICTED_KEYS,
    TYPES_KEY,
    check_data,
)
from fedscgen._genes import lacks_genes
from fedscgen._output import drop_outdated
from fedscgen._types import MAX_MISSING_GENES, LatentShifts, References
from fedscgen.correction import (
    Landmarks,
    Unlabeled,
    check_moves,
    correct_latent,
    find_own_references,
    label_positions,
    move_to_landmarks,
    name_cells,
    name_no_type,
    refuse_options_by_type,
    shift_latent,
    tabulate_moves,
    warn_of_lost_labels,
)
from fedscgen.model._corrected_cells import CorrectedCells
from fedscgen.model._correction_options import CorrectionOptions, require_types
from fedscgen.model._expression import ExpressionChange
from fedscgen.model._references_mixin import ReferencesMixin

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

    from fedscgen.correction import Correction


class CorrectionMixin(ReferencesMixin):
    """Correction of the registered cells, or of others with the same genes, and prediction of their types."""

    def correct(
        self,
        adata: AnnData | MuData | None = None,
        *,
        references: References | Landmarks | None = None,
        shifts: LatentShifts | None = None,
        shrink: bool = False,
        unlabeled: Unlabeled | None = None,
        min_confidence: float = 0.5,
        expression: str | None = CORRECTED_LAYER,
        denoise: bool = False,
        reencode: bool = False,
        batch_size: int = 1024,
        allow_unaligned: bool = False,
        max_missing_genes: float = MAX_MISSING_GENES,
        keep_genes: bool = False,
        out: str | Path | None = None,
    ) -> AnnData:
        """Move the cells of every batch to where they belong, in latent space and in expression.

        Parameters
        ----------
        adata
            Cells to correct; genes and keys are found by name. The registered ones if ``None``.
        references
            Where cells belong. By default what a federation agreed on (:attr:`references`), if the model holds it,
            else landmarks of these very batches, as :meth:`get_references` finds them.
        shifts
            What to add, instead of references: from :meth:`get_latent_shifts`.
        shrink
            Of references by cell type: draw shifts of few cells towards the batch's overall one; see
            :func:`fedscgen.correction.latent_shifts`.
        unlabeled
            Of references by cell type: how cells without a label move. ``"knn"``, the default: by the shift of the type
            that most of the 15 nearest labelled cells of their batch have, in latent space before correction.
            ``"mean"``: by the mean shift of their batch's labelled cells of types that have a reference. ``"leave"``:
            not at all. A batch without any labelled cell stays where it is.
        min_confidence
            With landmarks, a cell without a label is called ``"unknown"`` if no type is as probable as this.
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
        allow_unaligned
            Whether a batch may have labels of which none is known elsewhere, so that they don't tell where it belongs.
        max_missing_genes
            Share of the model's genes that ``adata`` may lack. They are taken for zero, with a warning.
        keep_genes
            Keep genes that the model doesn't know, with the expression that they have; ``var["fedscgen_corrected"]``
            tells the others from them.
        out
            A file ``.h5ad`` or a folder ``.zarr`` to make, whose cells needn't fit into memory: expression is written
            while it is read, chunk by chunk. It appears when it is complete; that it can be written, and that there is
            room, is checked before anything is computed.

        Returns
        -------
        A copy with the same cells in the same order and ``obsm["X_fedscgen"]``, the embedding in which to look for
        neighbours: with landmarks what :meth:`fedscgen.correction.Landmarks.embed` gives, of shape ``(n_cells, 10)``,
        else the shifted latent vectors, of shape ``(n_cells, n_latent)``. Genes that the model doesn't know are left
        out unless ``keep_genes`` is set. Of a MuData, the RNA modality. Where types were predicted,
        ``obs["fedscgen_cell_type"]`` holds the cells' own labels, and predicted ones of cells without; with landmarks
        ``obs["fedscgen_confidence"]`` says how probable each cell's type is, NaN for types that no two sites share, and
        ``obs["fedscgen_label_conflict"]`` whether classifier and neighbours contradict the cell's own label.
        ``obs["fedscgen_moved"]`` says which cells have moved, and ``uns["fedscgen_types"]`` has a row for each batch
        and type: cells, how many moved, and why others didn't, or aren't to be relied on. Embeddings of scanpy's are
        called ``"X_umap_before"`` and so on, and graphs of neighbours are left out, as they are of the cells before.

        With ``out``, what is returned lacks ``X``, layers and ``raw``: they are in the file. With ``expression=None``
        it shares them with ``adata`` and can't write to them; a ``copy()`` of it can.

        Raises
        ------
        RuntimeError
            The model hasn't been trained.
        ValueError
            Both ``references`` and ``shifts`` are given, ``shifts`` are given and should be shrunk, there are neither
            landmarks nor cell types, an option is out of range or doesn't fit the kind of references, or ``out`` names
            no format that can be written.
        OSError
            ``out`` exists, can't be written, or there is no room for it.
        NoSharedLabelError
            As in :meth:`get_references`, if no references are known; or every cell of a batch has a label, and none
            of these is known elsewhere.

        Warns
        -----
        UserWarning
            As in :meth:`FedSCGEN.setup_anndata`; or cells stay where they are; or a batch has too few to rely on how
            they move; or cells have labels, and move without them.
        """
        CorrectionOptions(
            shrink, unlabeled, min_confidence, expression, denoise, reencode, batch_size, allow_unaligned,
            max_missing_genes, keep_genes,
        )  # fmt: skip
        adata = self.adata if adata is None else adata
        references = self.references if references is None and shifts is None else references
        self._check_correctable(adata, references, shifts, shrink, unlabeled)
        given = self.keys.modality_of(adata)
        lacks_genes(given.var_names, self.genes, max_missing_genes)
        cells = CorrectedCells(given, self.keys.path, self.genes, keep_genes=keep_genes)
        corrected = cells.light
        self._tidy(corrected, adata)
        with cells.place(out, expression, dense=denoise) as path:
            latent, correction, types = self._move_cells(
                adata, references, shifts, batch_size, shrink=shrink, unlabeled=unlabeled, min_confidence=min_confidence
            )
            moved, known = correction.latent, correction.known
            if shifts is None:  # whoever gives them has chosen what moves
                check_moves(types, allow_unaligned=allow_unaligned or not known)
            corrected.obsm[LATENT_KEY] = correction.embedding
            self._note_types(corrected, correction)
            del correction  # as large as the vectors, and no longer needed
            corrected.obs[MOVED_KEY], corrected.uns[TYPES_KEY] = (moved != latent).any(axis=1), types
            change = ExpressionChange(self, latent, moved, corrected.var_names, denoise=denoise, reencode=reencode)
            return cells.finish(path, change, expression, batch_size)

    def _move_cells(
        self,
        adata: AnnData | MuData,
        references: References | Landmarks | None,
        shifts: LatentShifts | None,
        batch_size: int,
        *,
        shrink: bool,
        unlabeled: Unlabeled | None,
        min_confidence: float,
    ) -> tuple[np.ndarray, Correction, pd.DataFrame]:
        """Latent vectors before, what they become, and which types have moved."""
        latent = self._encode_all(adata, batch_size)
        batches, labels = self._categories(adata)
        of_adata = latent, batches, labels
        rows = self._find_registered(adata, *of_adata, batch_size)
        if rows is not None:  # a part of a batch is moved as the whole batch is
            latent, (batches, labels) = self._encode_all(self.adata, batch_size), self._categories(self.adata)
        if isinstance(references, Landmarks) and not references.labels and (labels.codes >= 0).any():
            warn_of_lost_labels("these landmarks were found without labels, so find new ones where labels are to count")
        if shifts is not None:
            correction = shift_latent(latent, batches, labels, shifts, unlabeled=unlabeled)
        else:
            found = find_own_references(latent, batches, labels) if references is None else references
            correction = correct_latent(
                latent, batches, labels, found, shrink=shrink, unlabeled=unlabeled, min_confidence=min_confidence
            )
        measured = None if shifts is not None else batches
        if rows is not None:
            correction, (latent, batches, labels) = correction.take(rows), of_adata
        moved = (correction.latent != latent).any(axis=1)
        types = tabulate_moves(batches, labels, moved, correction.known, measured)
        return latent, correction, types

    def predict(
        self,
        adata: AnnData | MuData | None = None,
        *,
        soft: bool = False,
        references: Landmarks | None = None,
        min_confidence: float = 0.5,
        batch_size: int = 1024,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> np.ndarray | pd.DataFrame:
        """Predict each cell's type from its expression; its own label, if it has one, is not looked at.

        Labels tell where a batch lies, though, so that a batch with labels is predicted better than one without.

        Parameters
        ----------
        adata
            As in :meth:`correct`.
        soft
            Give probabilities instead of names.
        references
            Landmarks; by default as :meth:`correct` has them.
        min_confidence
            A cell is ``"unknown"`` if no type is as probable as this.
        batch_size, max_missing_genes
            As in :meth:`correct`.

        Returns
        -------
        Names of shape ``(n_cells,)``; or, with ``soft``, a frame with a row for each cell and a column for each type
        and for ``"unknown"``, calibrated on labelled cells. Where a type is itself called ``"unknown"``, cells of no
        known type are ``"unknown (none of these)"``.

        Raises
        ------
        ValueError
            The references aren't landmarks, were found without any label or with a model of another latent size, too
            many genes are missing, or an option is out of range.
        NoSharedLabelError
            As in :meth:`get_references`.

        Warns
        -----
        UserWarning
            As in :meth:`FedSCGEN.setup_anndata`; or a few genes are missing.
        """
        CorrectionOptions(min_confidence=min_confidence, batch_size=batch_size, max_missing_genes=max_missing_genes)
        self._check_if_trained(warn=False)
        if adata is not None:
            check_data(adata, self.keys)
        adata = self.adata if adata is None else adata
        latent = self.get_latent_representation(adata, batch_size=batch_size, max_missing_genes=max_missing_genes)
        batches, labels = self._categories(adata)
        known = references or self.references or find_own_references(latent, batches, labels)
        landmarks = require_types(known)
        codes = label_positions(labels, landmarks.labels)
        probabilities = move_to_landmarks(latent, np.asarray(batches.codes), codes, landmarks).guess
        if soft:
            return pd.DataFrame(
                probabilities, index=adata.obs_names, columns=[*landmarks.labels, name_no_type(landmarks.labels)]
            )
        return name_cells(probabilities, landmarks.labels, min_confidence)

    def _check_correctable(
        self,
        adata: AnnData | MuData,
        references: References | Landmarks | None,
        shifts: LatentShifts | None,
        shrink: bool,
        unlabeled: Unlabeled | None,
    ) -> None:
        self._check_if_trained(warn=False)
        by_type = shifts is not None or isinstance(references, References)
        needs_labels = shifts is not None or (isinstance(references, References) and len(references.labels) > 0)
        if self.keys.labels_key is None and needs_labels:
            raise ValueError("references by cell type need cell types: set the data up with labels_key=...")
        if references is not None and shifts is not None:
            raise ValueError("pass either references or shifts, not both: shifts are made from references")
        if shifts is not None and shrink:
            raise ValueError("given shifts are added as they are: shrink them in get_latent_shifts(..., shrink=True)")
        if not by_type:
            refuse_options_by_type(shrink=shrink, unlabeled=unlabeled)
        check_data(adata, self.keys)

    def _note_types(self, corrected: AnnData, correction: Correction) -> None:
        """Write what is believed of the cells' types; without landmarks, only where some cells have no label."""
        if correction.confidence is None and self.keys.unlabeled_category is None:
            return
        believed = (correction.cell_types, correction.confidence, correction.conflict)
        for key, values in zip(PREDICTED_KEYS, believed, strict=True):
            if values is not None:
                corrected.obs[key] = values

    def _tidy(self, corrected: AnnData, adata: AnnData | MuData) -> None:
        """Bring a light copy of the cells to what a result takes over."""
        for key in (self.keys.batch_key, self.keys.labels_key):
            if key is not None and key not in corrected.obs:
                corrected.obs[key] = self.keys.column_of(adata, key)
        own = self.adata_manager.data_registry.values() if adata is self.adata else ()
        drop_outdated(corrected, (self.keys.batch_key, self.keys.labels_key, *(entry["attr_key"] for entry in own)))
