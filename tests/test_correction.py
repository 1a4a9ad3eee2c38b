"""Label statistics, references and shifts against loops in numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedscgen._types import LabelStats, References
from fedscgen.correction import (
    NoSharedLabelError,
    align_labels,
    apply_shifts,
    choose_references,
    include_batches,
    label_stats,
    latent_shifts,
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
    with pytest.raises(ValueError, match="unknown kind of reference 'median'"):
        choose_references(stats_of([[9], [9]]), kind="median")


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
