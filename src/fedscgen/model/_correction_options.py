"""How cells are corrected, as a value that checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fedscgen._data import CORRECTED_LAYER
from fedscgen._options import Preset, check_fields, check_share, check_whole
from fedscgen._types import MAX_MISSING_GENES, References, check_choice
from fedscgen.correction import Landmarks, Unlabeled


@dataclass(frozen=True)
class CorrectionOptions:
    """How a site corrects its cells, as :meth:`fedscgen.model.FedSCGEN.correct` takes it.

    Parameters
    ----------
    shrink
        Of references by cell type: draw shifts of few cells towards the batch's overall one; see
        :func:`fedscgen.correction.latent_shifts`.
    unlabeled
        Of references by cell type: how cells without a label move. ``"knn"``: as most of their nearest labelled
        neighbours do, which is the default; ``"mean"``: by their batch's mean shift; ``"leave"``: not at all.
    min_confidence
        With landmarks, a cell without a label is called ``"unknown"`` if no type is as probable as this.
    expression
        Where corrected expression goes: a layer's name, ``"X"``, or None for nowhere.
    denoise
        Whether corrected expression is what the shifted latent vector decodes to, as published, instead of the cell's
        own expression with what the shift changes.
    reencode
        Encode the decoded expression once more, into ``obsm["X_fedscgen_reencoded"]``, as published.
    batch_size
        Cells that are made dense at a time.
    allow_unaligned
        Whether a batch may have labels of which none is known elsewhere. False: that is an error.
    max_missing_genes
        Share of the model's genes that cells may lack if it was trained without them. They are taken for zero, with a
        warning.
    keep_genes
        Whether genes that the model doesn't know stay in the result, with the expression that they have;
        ``var["fedscgen_corrected"]`` tells the others from them. False: they are left out.

    Raises
    ------
    ValueError
        A value is of the wrong type, out of range or no choice; the message names it.
    """

    shrink: bool = False
    unlabeled: Unlabeled | None = None
    min_confidence: float = 0.5
    expression: str | None = CORRECTED_LAYER
    denoise: bool = False
    reencode: bool = False
    batch_size: int = 1024
    allow_unaligned: bool = False
    max_missing_genes: float = MAX_MISSING_GENES
    keep_genes: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole("batch_size", self.batch_size, 1)
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence={self.min_confidence}: a probability, from 0 to 1")
        check_share("max_missing_genes", self.max_missing_genes)

    @classmethod
    def from_preset(cls, preset: Preset) -> Self:
        """Options by name; with ``"paper"`` corrected expression is decoded, as published."""
        check_choice(preset, Preset, "settings")
        return cls(denoise=preset == "paper")


def require_types(references: References | Landmarks) -> Landmarks:
    """The references, unless they tell nothing of the types of cells without a label."""
    if not isinstance(references, Landmarks):
        raise ValueError(
            f"predict needs landmarks with cell types, and references of kind {references.kind!r} tell types by their "
            "labels alone: pass references=model.get_references(), found with cells that have labels"
        )
    if not references.labels:
        raise ValueError(
            "predict needs landmarks with cell types, and these were found without labels: set the data up with "
            "labels_key=..., and find them again with types that two batches or sites share"
        )
    return references
