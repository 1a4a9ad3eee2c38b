"""From latent vectors to shifts: label statistics, references, application. Pure numpy, vectorised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from fedscgen._types import LabelStats, LatentShifts, References, check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

ReferenceKind = Literal["dominant", "mean"]


class NoSharedLabelError(ValueError):
    """No cell type is held by two batches or sites: there is nothing to align."""


def label_stats(
    latent: np.ndarray,
    batch_codes: np.ndarray,
    label_codes: np.ndarray,
    batches: Sequence[str],
    labels: Sequence[str],
) -> LabelStats:
    """Count cells and average latent vectors by batch and cell type.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    batch_codes, label_codes
        Positions in ``batches`` and ``labels``, shape ``(n_cells,)``.
    """
    n_groups = len(batches) * len(labels)
    groups = batch_codes * len(labels) + label_codes
    counts = np.bincount(groups, minlength=n_groups)
    membership = sparse.csr_matrix(
        (np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(n_groups, len(groups))
    )
    means = (membership @ latent.astype(np.float64)) / np.maximum(counts, 1)[:, None]
    shape = (len(batches), len(labels))
    return LabelStats(tuple(batches), tuple(labels), counts.reshape(shape), means.reshape(*shape, -1))


def choose_references(stats: LabelStats, *, kind: ReferenceKind = "dominant", min_cells: int = 1) -> References:
    """Choose a reference for every cell type that at least two batches hold.

    Parameters
    ----------
    stats
        All batches that take part.
    kind
        ``"dominant"``: the mean of the batch with most cells, the first of equals (Bakhtiari et al. 2025; scGen).
        ``"mean"``: the cell-weighted mean over the batches.
    min_cells
        A batch with fewer cells of a type neither serves as its reference nor counts as holding it.

    Raises
    ------
    NoSharedLabelError
        No type is held by two batches.
    """
    check_choice(kind, ReferenceKind, "kind of reference")
    counts = np.where(stats.counts >= min_cells, stats.counts, 0)  # (B, L)
    shared = np.flatnonzero((counts > 0).sum(axis=0) >= 2)
    labels = tuple(stats.labels[i] for i in shared)
    if not labels:
        raise NoSharedLabelError(
            f"no cell type has {min_cells} or more cells in two batches (batches: {', '.join(stats.batches)}): "
            "check that the labels are spelled alike everywhere, or lower min_cells"
        )
    return _combine(labels, counts[:, shared], stats.means[:, shared], kind)


def include_batches(references: References, stats: LabelStats, *, min_cells: int = 1) -> References:
    """Recompute published references as if the batches of a newcomer had taken part.

    Types that the references don't hold stay out: whether two batches share them can't be known from here.

    Raises
    ------
    ValueError
        The references were opened without counts, so that a newcomer can't be weighed against them.
    """
    if references.n_cells is None:
        raise ValueError(
            "these references were opened without cell counts, so a newcomer can't be weighed against them; use them "
            "as they are, or let the sites agree on new references together with the newcomer"
        )
    own = align_labels(stats, references.labels)
    counts = np.where(own.counts >= min_cells, own.counts, 0)
    return _combine(
        references.labels,
        np.concatenate([references.n_cells[None], counts]),
        np.concatenate([references.means[None], own.means]),
        references.kind,
    )


def merge_references(first: References, second: References) -> References:
    """All of ``first``'s references, and those of ``second`` for cell types that ``first`` doesn't hold."""
    added = [i for i, label in enumerate(second.labels) if label not in first.labels]
    labels = (*first.labels, *(second.labels[i] for i in added))
    means = [references for references in (first.means, second.means[added]) if len(references)]
    return References(labels, np.concatenate(means) if means else first.means, None, first.kind)


def latent_shifts(stats: LabelStats, references: References) -> LatentShifts:
    """Reference mean minus own mean, for each batch and cell type; zero where there is no reference or no cell."""
    position = {label: i for i, label in enumerate(references.labels)}
    rows = np.array([position.get(label, -1) for label in stats.labels], dtype=int)
    movable = (rows >= 0)[None, :] & (stats.counts > 0)  # (B, L)
    targets = references.means[rows] if len(references.labels) else np.zeros_like(stats.means[0])
    shifts = np.where(movable[..., None], targets[None] - stats.means, 0.0)
    return LatentShifts(stats.batches, stats.labels, shifts)


def apply_shifts(
    latent: np.ndarray, batch_codes: np.ndarray, label_codes: np.ndarray, shifts: LatentShifts
) -> np.ndarray:
    """Add to each cell's latent vector the shift of its batch and type; shape ``(n_cells, n_latent)``, float32.

    Codes are positions in ``shifts.batches`` and ``shifts.labels``; a negative code moves nothing.
    """
    known = (batch_codes >= 0) & (label_codes >= 0)
    moves = np.where(known[:, None], shifts.shifts[batch_codes, label_codes], 0.0)
    return (latent + moves).astype(np.float32)


def _combine(labels: tuple[str, ...], counts: np.ndarray, means: np.ndarray, kind: str) -> References:
    """Reduce counts ``(B, L)`` and means ``(B, L, n_latent)`` over the batches to one reference a label."""
    if kind == "mean":
        n_cells = counts.sum(axis=0)
        return References(labels, np.einsum("bl,bld->ld", counts, means) / n_cells[:, None], n_cells, kind)
    dominant, columns = counts.argmax(axis=0), np.arange(len(labels))
    return References(labels, means[dominant, columns], counts[dominant, columns], kind)


def align_labels(stats: LabelStats, labels: Sequence[str]) -> LabelStats:
    """Statistics over just ``labels``, in that order; zero for those that ``stats`` lacks."""
    position = {label: i for i, label in enumerate(stats.labels)}
    held = [column for column, label in enumerate(labels) if label in position]
    own = [position[labels[column]] for column in held]
    counts = np.zeros((len(stats.batches), len(labels)), dtype=np.int64)
    means = np.zeros((len(stats.batches), len(labels), stats.means.shape[-1]))
    counts[:, held], means[:, held] = stats.counts[:, own], stats.means[:, own]
    return LabelStats(stats.batches, tuple(labels), counts, means)
