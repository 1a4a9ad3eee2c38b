"""From latent vectors to shifts: label statistics, references, application. Pure numpy, vectorised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from fedscgen._types import LabelStats, LatentShifts, ReferenceKind, References, check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

KindByType = Literal["dominant", "mean"]
Unlabeled = Literal["knn", "mean", "leave"]

_AT_REFERENCE = 1e-2  # of a mean's standard error; rounding in a secure sum moves a batch's own reference by less


class NoSharedLabelError(ValueError):
    """No cell type is held by two batches or sites: there is nothing to align."""


def label_stats(
    latent: np.ndarray,
    batch_codes: np.ndarray,
    label_codes: np.ndarray,
    batches: Sequence[str],
    labels: Sequence[str],
) -> LabelStats:
    """Count cells, and find mean and variance of their latent vectors, by batch and cell type.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    batch_codes, label_codes
        Positions in ``batches`` and ``labels``, shape ``(n_cells,)``. Cells with a negative label code count nowhere.
    """
    labelled = label_codes >= 0
    vectors = latent[labelled].astype(np.float64)
    shape = (len(batches), len(labels))
    groups = batch_codes[labelled].astype(np.int64) * len(labels) + label_codes[labelled]  # pandas' codes are int8
    counts = np.bincount(groups, minlength=shape[0] * shape[1])
    membership = sparse.csr_matrix(
        (np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(len(counts), len(groups))
    )
    at_least_one = np.maximum(counts, 1)
    means = (membership @ vectors) / at_least_one[:, None]
    variances = (membership @ ((vectors - means[groups]) ** 2).sum(axis=1)) / at_least_one
    return LabelStats(
        tuple(batches),
        tuple(labels),
        counts.reshape(shape),
        means.reshape(*shape, latent.shape[1]),
        variances.reshape(shape),
    )


def label_stats_of(latent: np.ndarray, batches: pd.Categorical, labels: pd.Categorical) -> LabelStats:
    """The same by the categories' names.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    batches, labels
        Each cell's batch and label; cells without a label count nowhere.
    """
    return label_stats(latent, batches.codes, labels.codes, list(batches.categories), list(labels.categories))


def choose_references(stats: LabelStats, *, kind: KindByType = "dominant", min_cells: int = 1) -> References:
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
    check_choice(kind, KindByType, "kind of reference")
    counts = np.where(stats.counts >= min_cells, stats.counts, 0)  # (B, L)
    shared = np.flatnonzero((counts > 0).sum(axis=0) >= 2)
    labels = tuple(stats.labels[i] for i in shared)
    if not labels:
        raise make_no_shared_label_error(stats.batches, min_cells)
    return _combine(labels, counts[:, shared], stats.means[:, shared], kind)


def make_no_shared_label_error(
    batches: Sequence[str], min_cells: int, kind: ReferenceKind = "dominant"
) -> NoSharedLabelError:
    """What to raise where no type is held by two of these batches, or where there is one batch alone."""
    if len(batches) < 2:
        return NoSharedLabelError(
            f"all cells are of one batch ({', '.join(batches)}), so there is nothing to align them with: name the "
            "column that tells batches apart (batch_key=...), or pass references that were found with other batches"
        )
    remedies = ["check that the labels are spelled alike everywhere"]
    remedies += [f"lower min_cells={min_cells}"] if min_cells > 1 else []
    remedies += ["correct without labels (labels_key=None)"] if kind == "landmarks" else []
    return NoSharedLabelError(
        f"no cell type has {min_cells} or more cells in two batches (batches: {', '.join(batches)}): "
        f"{', or '.join(remedies)}"
    )


def check_latent_size(what: str, n_found: int, n_latent: int) -> None:
    """Refuse references that lie in a latent space of another size than the cells."""
    if n_found != n_latent:
        raise ValueError(
            f"{what} of {n_found} latent dimensions don't fit cells of {n_latent}: pass what was found with this model "
            f"(get_references()), or load the model that they were found with (n_latent={n_found})"
        )


def include_batches(references: References, stats: LabelStats, *, min_cells: int = 1) -> References:
    """Recompute published references as if the batches of a newcomer had taken part.

    Types that the references don't hold stay out: whether two batches share them can't be known from here.

    Parameters
    ----------
    references
        As published, with the counts behind them.
    stats
        The newcomer's batches.
    min_cells
        A batch with fewer cells of a type doesn't take part in its reference.

    Raises
    ------
    ValueError
        The references were opened without counts, so that a newcomer can't be weighed against them; or they are of
        another latent space.
    """
    if references.n_cells is None:
        raise ValueError(
            "these references were opened without cell counts, so a newcomer can't be weighed against them; use them "
            "as they are, or let the sites agree on new references together with the newcomer"
        )
    check_latent_size("references", references.means.shape[1], stats.means.shape[-1])
    own = align_labels(stats, references.labels)
    counts = np.where(own.counts >= min_cells, own.counts, 0)
    return _combine(
        references.labels,
        np.concatenate([references.n_cells[None], counts]),
        np.concatenate([references.means[None], own.means]),
        references.kind,
    )


def merge_references(first: References, second: References) -> References:
    """All of ``first``'s references, and those of ``second`` for cell types that ``first`` doesn't hold.

    Parameters
    ----------
    first, second
        References in the same latent space.
    """
    added = [i for i, label in enumerate(second.labels) if label not in first.labels]
    labels = (*first.labels, *(second.labels[i] for i in added))
    means = [references for references in (first.means, second.means[added]) if len(references)]
    return References(labels, np.concatenate(means) if means else first.means, None, first.kind)


def latent_shifts(stats: LabelStats, references: References, *, shrink: bool = False) -> LatentShifts:
    """Reference mean minus own mean, for each batch and cell type; zero where there is no reference or no cell.

    Parameters
    ----------
    stats
        The batches to be moved.
    references
        Where each cell type belongs.
    shrink
        Draw each batch's shifts towards its overall shift, those of few cells most, since they are mostly noise:
        empirical Bayes with the moments of DerSimonian and Laird (1986). With ``n`` cells of a type, ``s2`` the
        variance within the batch's types and ``tau2`` that of the true shifts around the overall one, a shift keeps
        ``tau2 / (tau2 + s2 / n)`` of its distance from the overall shift, the mean of all with weights
        ``1 / (tau2 + s2 / n)``. Variances are those of all dimensions together: the axes of latent space are
        arbitrary. Types of which the batch is itself the reference, recognised by a shift of less than a hundredth
        of its standard error, neither move nor count.

    Raises
    ------
    ValueError
        ``shrink`` is set, and ``stats`` holds no variances; or the references are of another latent space.
    """
    if references.labels:
        check_latent_size("references", references.means.shape[1], stats.means.shape[-1])
    position = {label: i for i, label in enumerate(references.labels)}
    rows = np.array([position.get(label, -1) for label in stats.labels], dtype=int)
    movable = (rows >= 0)[None, :] & (stats.counts > 0)  # (B, L)
    targets = references.means[rows] if len(references.labels) else np.zeros_like(stats.means[0])
    shifts = np.where(movable[..., None], targets[None] - stats.means, 0.0)
    if shrink:
        shifts = _shrink(shifts, stats, movable)
    return LatentShifts(stats.batches, stats.labels, shifts, movable)


def _shrink(raw: np.ndarray, stats: LabelStats, movable: np.ndarray) -> np.ndarray:
    """Shifts ``(B, L, n_latent)``, each between its raw value and its batch's overall shift."""
    if stats.variances is None:
        raise ValueError("these statistics hold no variances, by which shifts are shrunk: make them with label_stats")
    freedom = stats.counts.sum(axis=1) - (stats.counts > 0).sum(axis=1)
    within = (stats.counts * stats.variances).sum(axis=1) / np.maximum(freedom, 1)  # (B,)
    noise = within[:, None] / np.maximum(stats.counts, 1)  # (B, L)
    moved = movable & ((raw**2).sum(axis=-1) > _AT_REFERENCE**2 * noise)
    cells = np.where(moved, stats.counts, 0)
    n_cells = np.maximum(cells.sum(axis=1), 1)
    between = (cells * ((raw - _weighted_mean(raw, cells)) ** 2).sum(axis=-1)).sum(axis=1)
    excess = between - (moved.sum(axis=1) - 1) * within
    scatter = np.maximum(excess, 0.0) / np.maximum(n_cells - (cells**2).sum(axis=1) / n_cells, 1.0)
    variance = scatter[:, None] + noise
    variance[variance == 0] = 1.0  # all of the batch's shifts are the same then
    overall = _weighted_mean(raw, moved / variance)
    kept = (scatter[:, None] / variance)[..., None]
    return np.where(moved[..., None], overall + kept * (raw - overall), raw)


def _weighted_mean(shifts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the types of ``(B, L, n_latent)``, kept as ``(B, 1, n_latent)``; zero where all weights are."""
    total = weights.sum(axis=1)
    sums = np.einsum("bl,bld->bd", weights, shifts)
    means: np.ndarray = sums / np.where(total > 0, total, 1.0)[:, None]
    return means[:, None]


def mean_shifts(shifts: LatentShifts, batch_codes: np.ndarray, label_codes: np.ndarray) -> np.ndarray:
    """Mean shift of each batch's labelled cells, of types that have a reference; zero for a batch without any.

    Parameters
    ----------
    shifts
        By batch and cell type.
    batch_codes, label_codes
        Positions in ``shifts.batches`` and ``shifts.labels``, shape ``(n_cells,)``; negative ones count nowhere.

    Returns
    -------
    Shape ``(n_batches, n_latent)``.
    """
    counts = np.zeros(shifts.shifts.shape[:2])
    held = (batch_codes >= 0) & (label_codes >= 0)
    np.add.at(counts, (batch_codes[held], label_codes[held]), 1)
    return _weighted_mean(shifts.shifts, counts if shifts.known is None else counts * shifts.known)[:, 0]


def predict_labels(
    latent: np.ndarray, batch_codes: np.ndarray, label_codes: np.ndarray, n_neighbors: int = 15
) -> np.ndarray:
    """Give each cell without a label that of most of its nearest labelled neighbours within its batch.

    Parameters
    ----------
    latent
        Where the cells lie, shape ``(n_cells, n_latent)``.
    batch_codes, label_codes
        Each cell's batch and label, shape ``(n_cells,)``; a negative label is none.
    n_neighbors
        Neighbours to ask; all labelled cells of a batch that has fewer. Of labels with equally many, the one with the
        lowest code is taken.

    Returns
    -------
    ``label_codes``, completed; still negative in a batch without a labelled cell.
    """
    from sklearn.neighbors import KNeighborsClassifier

    completed = np.array(label_codes)
    for batch in np.unique(batch_codes[label_codes < 0]):
        known = (batch_codes == batch) & (label_codes >= 0)
        asking = (batch_codes == batch) & (label_codes < 0)
        if known.any():
            classifier = KNeighborsClassifier(min(n_neighbors, int(known.sum())))
            completed[asking] = classifier.fit(latent[known], label_codes[known]).predict(latent[asking])
    return completed


def apply_shifts(
    latent: np.ndarray, batch_codes: np.ndarray, label_codes: np.ndarray, shifts: LatentShifts
) -> np.ndarray:
    """Add to each cell's latent vector the shift of its batch and type; shape ``(n_cells, n_latent)``, float32.

    Parameters
    ----------
    latent
        Shape ``(n_cells, n_latent)``.
    batch_codes, label_codes
        Positions in ``shifts.batches`` and ``shifts.labels``, shape ``(n_cells,)``; a negative code moves nothing.
    shifts
        By batch and cell type.

    Raises
    ------
    ValueError
        The shifts are of another latent space.
    """
    check_latent_size("shifts", shifts.shifts.shape[-1], latent.shape[1])
    known = (batch_codes >= 0) & (label_codes >= 0)
    moves = np.zeros(latent.shape)
    moves[known] = shifts.shifts[batch_codes[known], label_codes[known]]
    return (latent + moves).astype(np.float32)


def _combine(labels: tuple[str, ...], counts: np.ndarray, means: np.ndarray, kind: str) -> References:
    """Reduce counts ``(B, L)`` and means ``(B, L, n_latent)`` over the batches to one reference per label."""
    if kind == "mean":
        n_cells = counts.sum(axis=0)
        return References(labels, np.einsum("bl,bld->ld", counts, means) / n_cells[:, None], n_cells, kind)
    dominant, columns = counts.argmax(axis=0), np.arange(len(labels))
    return References(labels, means[dominant, columns], counts[dominant, columns], kind)


def align_labels(stats: LabelStats, labels: Sequence[str]) -> LabelStats:
    """Statistics over just ``labels``, in that order; zero for those that ``stats`` lacks.

    Parameters
    ----------
    stats
        Without variances in the result.
    labels
        Names of cell types.
    """
    position = {label: i for i, label in enumerate(stats.labels)}
    held = [column for column, label in enumerate(labels) if label in position]
    own = [position[labels[column]] for column in held]
    counts = np.zeros((len(stats.batches), len(labels)), dtype=np.int64)
    means = np.zeros((len(stats.batches), len(labels), stats.means.shape[-1]))
    counts[:, held], means[:, held] = stats.counts[:, own], stats.means[:, own]
    return LabelStats(stats.batches, tuple(labels), counts, means)
