"""Label statistics, references and shifts against loops in numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedscgen._types import LabelStats, LatentShifts, References
from fedscgen.correction import (
    NoSharedLabelError,
    align_labels,
    apply_shifts,
    choose_references,
    include_batches,
    label_stats,
    latent_shifts,
    mean_shifts,
    merge_references,
)


def cells(seed, n_cells=60, n_batches=3, n_labels=4):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n_cells, 2)).astype(np.float32),
        rng.integers(n_batches, size=n_cells),
        rng.integers(n_labels, size=n_cells),
    )


def stats_of(counts, means=None):
    counts = np.array(counts)
    means = np.random.default_rng(0).normal(size=(*counts.shape, 2)) if means is None else np.array(means)
    batches, labels = (tuple(f"{axis}{i}" for i in range(n)) for axis, n in zip("bl", counts.shape, strict=True))
    return LabelStats(batches, labels, counts, means)


@given(st.integers(0, 10**6), st.integers(1, 80))
def test_statistics_equal_those_of_a_loop(seed, n_cells):
    latent, batch, label = cells(seed, n_cells)
    stats = label_stats(latent, batch, label, ["b0", "b1", "b2"], ["l0", "l1", "l2", "l3"])
    for b in range(3):
        for k in range(4):
            chosen = latent[(batch == b) & (label == k)]
            assert stats.counts[b, k] == len(chosen)
            np.testing.assert_allclose(stats.means[b, k], chosen.mean(axis=0) if len(chosen) else 0, atol=1e-6)
            np.testing.assert_allclose(stats.variances[b, k], chosen.var(axis=0).sum() if len(chosen) else 0, atol=1e-5)


def test_cells_without_a_label_count_nowhere():
    latent, batch, label = cells(0)
    label[::3] = -1
    stats, expected = (
        label_stats(latent[chosen], batch[chosen], label[chosen], ["b0", "b1", "b2"], ["l0", "l1", "l2", "l3"])
        for chosen in (slice(None), label >= 0)
    )
    for name in ("counts", "means", "variances"):
        np.testing.assert_array_equal(getattr(stats, name), getattr(expected, name))
    none = label_stats(latent, batch, np.full(60, -1), ["b0", "b1", "b2"], [])
    assert (none.counts.shape, none.means.shape) == ((3, 0), (3, 0, 2))
    references = References(("l0",), np.ones((1, 2)))
    np.testing.assert_array_equal(apply_shifts(latent, batch, np.full(60, -1), latent_shifts(none, references)), latent)


def test_small_codes_do_not_overflow():
    batch, label = np.repeat(np.arange(20), 20).astype(np.int8), np.tile(np.arange(20), 20).astype(np.int8)
    names = [str(i) for i in range(20)]
    stats = label_stats(np.arange(800.0).reshape(400, 2), batch, label, names, names)
    np.testing.assert_array_equal(stats.counts, 1)
    np.testing.assert_array_equal(stats.means[19, 19], [798, 799])


def test_the_batch_with_most_cells_is_dominant_and_the_first_of_equals():
    stats = stats_of([[3, 5, 2], [4, 5, 0]])
    references = choose_references(stats)
    assert references.labels == ("l0", "l1")
    np.testing.assert_array_equal(references.means, [stats.means[1, 0], stats.means[0, 1]])
    np.testing.assert_array_equal(references.n_cells, [4, 5])


def test_mean_references_weigh_by_cells():
    stats = stats_of([[3], [1]], [[[0.0, 0.0]], [[4.0, 8.0]]])
    references = choose_references(stats, kind="mean")
    np.testing.assert_allclose(references.means, [[1.0, 2.0]])
    np.testing.assert_array_equal(references.n_cells, [4])


def test_batches_with_few_cells_do_not_count():
    stats = stats_of([[9, 9], [4, 9], [5, 1]])
    references = choose_references(stats, min_cells=5)
    assert references.labels == ("l0", "l1")
    np.testing.assert_array_equal(references.n_cells, [9, 9])
    assert choose_references(stats_of([[9, 9], [4, 9]]), min_cells=5).labels == ("l1",)


def test_no_shared_label_is_an_error_that_names_batches():
    with pytest.raises(
        NoSharedLabelError, match=r"no cell type has 5 or more cells in two batches \(batches: b0, b1\)"
    ):
        choose_references(stats_of([[9, 0], [4, 9]]), min_cells=5)
    for kind in ("median", "landmarks"):
        with pytest.raises(ValueError, match=f"unknown kind of reference '{kind}': choose one of 'dominant', 'mean'"):
            choose_references(stats_of([[9], [9]]), kind=kind)


@given(st.integers(0, 10**6))
def test_shifted_cells_of_a_type_meet_at_their_reference(seed):
    latent, batch, label = cells(seed)
    stats = label_stats(latent, batch, label, ["b0", "b1", "b2"], ["l0", "l1", "l2", "l3"])
    references = choose_references(stats, kind="mean")
    moved = apply_shifts(latent, batch, label, latent_shifts(stats, references))
    for row, name in enumerate(references.labels):
        for b in range(3):
            chosen = (batch == b) & (label == int(name[1]))
            if chosen.any():
                np.testing.assert_allclose(moved[chosen].mean(axis=0), references.means[row], atol=1e-5)
    others = ~np.isin(label, [int(name[1]) for name in references.labels])
    np.testing.assert_array_equal(moved[others], latent[others])


def loose_shifts(seed, n_cells=(2, 40)):
    """Statistics of two batches of six types, the reference of each, and which shifts of a batch are noisy."""
    rng = np.random.default_rng(seed)
    counts, means = rng.integers(*n_cells, (2, 6)), rng.normal(size=(2, 6, 3))
    counts[:, 5] = [3, 0]
    batches, labels = ("b0", "b1"), tuple(f"l{i}" for i in range(6))
    stats = LabelStats(batches, labels, counts, means, rng.gamma(2.0, 1.0, (2, 6)))
    moved = counts[:, :5].argmax(axis=0) != [[0], [1]]
    return stats, choose_references(stats), moved


def shrunk_by_hand(raw, counts, variances, moved):
    """One batch's shifts, type by type, by the formulas of the documentation."""
    within = sum(n * v for n, v in zip(counts, variances, strict=True)) / sum(n - 1 for n in counts if n > 0)
    types = np.flatnonzero(moved)
    n, r = counts[types], raw[types]
    center = np.average(r, axis=0, weights=n)
    spread = sum(n[i] * np.sum((r[i] - center) ** 2) for i in range(len(n)))
    scatter = max(0.0, (spread - (len(n) - 1) * within) / (n.sum() - (n**2).sum() / n.sum()))
    overall = np.average(r, axis=0, weights=[1 / (scatter + within / m) for m in n])
    shrunk = raw.copy()
    for i, k in enumerate(types):
        shrunk[k] = overall + scatter / (scatter + within / n[i]) * (r[i] - overall)
    return shrunk, overall


@given(st.integers(0, 10**6))
def test_shrunk_shifts_equal_those_of_a_loop(seed):
    stats, references, moved = loose_shifts(seed)
    raw, shrunk = (latent_shifts(stats, references, shrink=s).shifts for s in (False, True))
    for b in range(2):
        if moved[b].sum() >= 2:
            expected, _ = shrunk_by_hand(raw[b], stats.counts[b], stats.variances[b], moved[b])
            np.testing.assert_allclose(shrunk[b], expected, atol=1e-9)
        else:
            np.testing.assert_allclose(shrunk[b], raw[b], atol=1e-12)


@given(st.integers(0, 10**6))
def test_shrunk_shifts_lie_between_the_raw_and_the_overall_one(seed):
    stats, references, moved = loose_shifts(seed)
    raw, shrunk = (latent_shifts(stats, references, shrink=s).shifts for s in (False, True))
    for b in range(2):
        if moved[b].sum() < 2:
            continue
        _, overall = shrunk_by_hand(raw[b], stats.counts[b], stats.variances[b], moved[b])
        whole, way = raw[b] - overall, shrunk[b] - overall
        kept = (whole * way).sum(axis=-1) / (whole**2).sum(axis=-1)
        for k in np.flatnonzero(moved[b]):
            assert -1e-9 <= kept[k] <= 1 + 1e-9
            np.testing.assert_allclose(way[k], kept[k] * whole[k], atol=1e-9)
        few_first = np.flatnonzero(moved[b])[np.argsort(stats.counts[b][np.flatnonzero(moved[b])])]
        assert (np.diff(kept[few_first]) >= -1e-9).all(), "the fewer cells, the nearer to the overall shift"


@given(st.integers(0, 10**6))
def test_a_batch_does_not_leave_its_own_references_when_shifts_are_shrunk(seed):
    stats, references, moved = loose_shifts(seed)
    shrunk = latent_shifts(stats, references, shrink=True).shifts
    np.testing.assert_array_equal(shrunk[:, :5][~moved], 0)
    np.testing.assert_array_equal(shrunk[:, 5], 0, "nor do types without a reference move")
    rounded = References(references.labels, references.means + 1e-7, None, references.kind)
    assert np.abs(latent_shifts(stats, rounded, shrink=True).shifts[:, :5][~moved]).max(initial=0) < 1e-6


@given(st.integers(0, 10**6), st.sampled_from(["dominant", "mean"]))
def test_with_many_cells_shrunk_shifts_are_the_raw_ones(seed, kind):
    stats, _, _ = loose_shifts(seed, (10**7, 10**8))
    references = choose_references(stats, kind=kind)
    raw, shrunk = (latent_shifts(stats, references, shrink=s).shifts for s in (False, True))
    np.testing.assert_allclose(shrunk, raw, atol=1e-3)


def test_shrinking_comes_nearer_to_the_true_shifts():
    rng = np.random.default_rng(0)
    n_types, counts = 12, rng.integers(2, 12, (2, 12))
    counts[0] = 4000
    labels = [f"l{i}" for i in range(n_types)]
    error = dict.fromkeys((False, True), 0.0)
    for _ in range(20):
        places, true = rng.normal(0, 4, (n_types, 3)), rng.normal(1, 0.3, 3) + rng.normal(0, 0.3, (n_types, 3))
        batch = np.repeat([0, 1], counts.sum(axis=1))
        label = np.repeat(np.tile(np.arange(n_types), 2), counts.ravel())
        latent = places[label] - np.where(batch[:, None] == 1, true[label], 0) + rng.normal(size=(len(label), 3))
        stats = label_stats(latent, batch, label, ["b0", "b1"], labels)
        for shrink in error:
            shifts = latent_shifts(stats, choose_references(stats), shrink=shrink).shifts
            error[shrink] += ((shifts[1] - true) ** 2).sum()
            np.testing.assert_array_equal(shifts[0], 0)
    assert error[True] < 0.6 * error[False]


def test_single_cells_say_nothing_of_noise_and_statistics_without_variances_are_refused():
    stats = LabelStats(("b0", "b1"), ("l0", "l1"), np.array([[9, 9], [1, 1]]), np.ones((2, 2, 2)), np.zeros((2, 2)))
    stats.means[1] = [[2, 3], [0, 1]]
    references = choose_references(stats)
    raw, shrunk = (latent_shifts(stats, references, shrink=s).shifts for s in (False, True))
    np.testing.assert_allclose(shrunk, raw)
    with pytest.raises(ValueError, match="these statistics hold no variances, by which shifts are shrunk: make them"):
        latent_shifts(align_labels(stats, ["l0"]), references, shrink=True)


def test_mean_shifts_weigh_by_cells_of_types_that_have_a_reference():
    stats = stats_of([[3, 1, 2, 4], [9, 9, 1, 0]])
    shifts = latent_shifts(stats, choose_references(stats))
    batch, label = (np.repeat(np.indices((2, 4))[axis].ravel(), stats.counts.ravel()) for axis in (0, 1))
    found = mean_shifts(shifts, np.append(batch, [0, -1]), np.append(label, [-1, 0]))
    first, second = shifts.shifts
    np.testing.assert_allclose(
        found, [(3 * first[0] + first[1]) / 6, second[2] / 19], err_msg="type 2 counts, type 3 not"
    )
    given_by_hand = LatentShifts(shifts.batches, shifts.labels, shifts.shifts)
    np.testing.assert_allclose(mean_shifts(given_by_hand, batch, label)[0], (3 * first[0] + first[1]) / 10)


def test_cells_of_unknown_batch_or_type_are_not_moved():
    stats = stats_of([[3], [2]])
    shifts = latent_shifts(stats, choose_references(stats))
    latent = np.zeros((2, 2), dtype=np.float32)
    moved = apply_shifts(latent, np.array([-1, 1]), np.array([0, -1]), shifts)
    np.testing.assert_array_equal(moved, latent)


@given(st.integers(0, 10**6), st.sampled_from(["dominant", "mean"]))
def test_including_a_newcomer_equals_choosing_with_it(seed, kind):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, (3, 4))
    means = rng.normal(size=(3, 4, 2))
    together = choose_references(stats_of(counts, means), kind=kind)
    first = choose_references(stats_of(counts[:2], means[:2]), kind=kind)
    newcomer = stats_of(counts[2:], means[2:])
    included = include_batches(first, newcomer)
    np.testing.assert_allclose(included.means, together.means, atol=1e-9)
    np.testing.assert_array_equal(included.n_cells, together.n_cells)


def test_a_newcomer_can_not_be_weighed_against_hidden_counts():
    references = References(("l0",), np.zeros((1, 2)), None)
    with pytest.raises(ValueError, match="opened without cell counts, so a newcomer can't be weighed"):
        include_batches(references, stats_of([[3]]))


def test_labels_are_aligned_by_name():
    stats = stats_of([[3, 5]])
    aligned = align_labels(stats, ["l1", "other"])
    np.testing.assert_array_equal(aligned.counts, [[5, 0]])
    np.testing.assert_array_equal(aligned.means[0, 0], stats.means[0, 1])


def test_merging_prefers_the_first():
    first = References(("a", "b"), np.array([[1.0], [2.0]]), None, "mean")
    second = References(("c", "a"), np.array([[3.0], [9.0]]))
    merged = merge_references(first, second)
    assert (merged.labels, merged.kind) == (("a", "b", "c"), "mean")
    np.testing.assert_array_equal(merged.means, [[1], [2], [3]])
