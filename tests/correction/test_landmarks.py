"""Landmarks that several sites find by sums, and cells that are moved to them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from fedscgen.correction import (
    Landmarks,
    LandmarkSums,
    Question,
    apply_shifts,
    choose_references,
    find_landmarks,
    label_stats,
    latent_shifts,
    move_to_landmarks,
    weigh_labels,
)
from fedscgen.correction import _effects as effects

N_TYPES, N_LATENT = 4, 6


def make_cells(seed=0, n_sites=3, n_cells=240, batch_effect=3.0):
    """Cells of several types at several sites, each of which is moved as a whole, and each type a little by itself."""
    rng = np.random.default_rng(seed)
    types = rng.integers(N_TYPES, size=n_sites * n_cells)
    batches = np.repeat(np.arange(n_sites), n_cells)
    centres = 6 * rng.normal(size=(N_TYPES, N_LATENT))
    moves = batch_effect * rng.normal(size=(n_sites, N_LATENT))
    more = 0.3 * rng.normal(size=(n_sites, N_TYPES, N_LATENT))
    noise = rng.normal(size=(len(types), N_LATENT))
    return centres[types] + moves[batches] + more[batches, types] + noise, batches, types


def find(latent, batches, codes, n_types=N_TYPES, *, min_cells=5, asked=None, **options):
    sites = [LandmarkSums(latent[batches == b], batches[batches == b], codes[batches == b], n_types, min_cells)
             for b in np.unique(batches)]  # fmt: skip

    def sum_over_sites(question):
        answers = [site.answer(question) for site in sites]
        if asked is not None:
            asked.append((question, answers))
        return {name: sum(answer[name] for answer in answers) for name in answers[0]}

    return find_landmarks(sum_over_sites, [f"type{i}" for i in range(n_types)], **options)


def correct(latent, batches, codes, **options):
    return move_to_landmarks(latent, batches, codes, find(latent, batches, codes, **options))


def distance_between_batches(latent, batches, types):
    """Mean distance of a type's mean in a batch from its mean in all."""
    gaps = []
    for kind in np.unique(types):
        means = [latent[(types == kind) & (batches == b)].mean(axis=0) for b in np.unique(batches)]
        gaps += [np.linalg.norm(mean - np.mean(means, axis=0)) for mean in means]
    return np.mean(gaps)


def tell_apart(latent, first):
    """Balanced accuracy of the nearest neighbours: 0.5 where nothing tells the halves apart."""
    return cross_val_score(KNeighborsClassifier(15), latent, first, cv=5, scoring="balanced_accuracy").mean()


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_labelled_cells_move_as_ridge_regression_says(seed):
    """With one landmark per type, whose cells are known, all is a closed formula."""
    latent, batches, types = make_cells(seed, n_cells=40)
    landmarks = find(latent, batches, types, min_cells=1)
    one_per_type = replace(
        landmarks,
        types=np.arange(N_TYPES),
        positions=np.random.default_rng(seed).normal(size=(N_TYPES, N_LATENT)),
        n_cells=np.full(N_TYPES, 30.0),
    )
    moved = move_to_landmarks(latent, batches, types, one_per_type)
    expected = latent.copy()
    for batch in range(3):
        rows = batches == batch
        n = np.bincount(types[rows], minlength=N_TYPES)
        means = np.array([latent[rows & (types == t)].mean(axis=0) if n[t] else np.zeros(N_LATENT)
                          for t in range(N_TYPES)])  # fmt: skip
        weights, gaps = 2 * n / (n + 2), means - one_per_type.positions
        shift = (weights[:, None] * gaps).sum(axis=0) / (weights.sum() + 1)
        offsets = (n / (n + 2))[:, None] * (gaps - shift)
        expected[rows] -= shift + offsets[types[rows]]
    np.testing.assert_allclose(moved.latent, expected, atol=1e-9)
    np.testing.assert_array_equal(moved.belief.argmax(axis=1), types)


def test_batches_meet_type_by_type():
    latent, batches, types = make_cells()
    moved = correct(latent, batches, types).latent
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved))
    assert after < 0.1 * before


def test_a_type_split_at_random_stays_one():
    """Names that nothing in the cells supports must not become a difference, as dominant references make of them."""
    latent, batches, types = make_cells(1)
    codes, rng = types.copy(), np.random.default_rng(0)
    for batch, share in enumerate((0.7, 0.3, 0.7)):
        cells = rng.permutation(np.flatnonzero((types == 0) & (batches == batch)))
        codes[cells[round(share * len(cells)) :]] = N_TYPES
    split = types == 0
    moved = correct(latent, batches, codes, n_types=N_TYPES + 1).latent
    stats = label_stats(latent, batches, codes, ["a", "b", "c"], [f"type{i}" for i in range(N_TYPES + 1)])
    by_dominant = apply_shifts(latent, batches, codes, latent_shifts(stats, choose_references(stats, kind="dominant")))
    assert tell_apart(by_dominant[split], codes[split] == 0) > 0.9
    assert tell_apart(moved[split], codes[split] == 0) < 0.56


@pytest.mark.parametrize("hidden", [0.5, 0.8, 0.95])
def test_cells_without_a_label_are_named_and_move_with_their_type(hidden):
    latent, batches, types = make_cells(2)
    codes = np.where(np.random.default_rng(0).random(len(types)) < hidden, -1, types)
    moved = correct(latent, batches, codes)
    assert (moved.belief.argmax(axis=1) == types)[codes < 0].mean() > 0.98
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved.latent))
    assert after < 0.15 * before


def test_a_batch_without_labels_moves_with_the_types_of_the_others():
    latent, batches, types = make_cells(3)
    moved = correct(latent, batches, np.where(batches == 2, -1, types))
    assert (moved.belief.argmax(axis=1) == types)[batches == 2].mean() > 0.98
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved.latent))
    assert after < 0.1 * before


def test_a_newcomer_without_labels_moves_to_where_its_types_belong():
    latent, batches, types = make_cells(4, n_sites=4)
    old = batches < 3
    landmarks = find(latent[old], batches[old], types[old])
    moved = move_to_landmarks(latent, batches, np.where(old, types, -1), landmarks)
    assert (moved.belief.argmax(axis=1) == types)[~old].mean() > 0.98
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved.latent))
    assert after < 0.15 * before


def test_no_label_at_all_aligns_cells_that_are_alike():
    latent, batches, types = make_cells(5, batch_effect=1.0)
    moved = correct(latent, batches, np.full(len(types), -1), n_types=0).latent
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved))
    assert after < 0.3 * before


def test_a_type_of_one_site_moves_with_its_batch():
    latent, batches, types = make_cells(6)
    here = (batches == 1) & (types == 3)
    keep = here | (types != 3)
    latent, batches, types, here = latent[keep], batches[keep], types[keep], here[keep]
    codes = np.where(types == 3, 3, types)  # of three types that the federation knows, the fourth is none
    moved = correct(latent, batches, codes, n_types=3).latent
    moves = (latent - moved)[here]
    own_shift = (latent - moved)[(batches == 1) & ~here].mean(axis=0)
    assert moves.std(axis=0).max() < 1e-9
    assert np.linalg.norm(moves[0] - own_shift) < 0.5


def test_wrong_labels_are_outvoted():
    latent, batches, types = make_cells(7)
    rng = np.random.default_rng(0)
    codes = np.where(rng.random(len(types)) < 0.2, rng.integers(N_TYPES, size=len(types)), types)
    moved = correct(latent, batches, codes, label_noise=0.1)
    assert (codes == types).mean() < 0.87
    assert (moved.belief.argmax(axis=1) == types).mean() > 0.99


def test_the_order_of_sites_does_not_matter():
    latent, batches, types = make_cells(8)
    codes = np.where(np.random.default_rng(0).random(len(types)) < 0.5, -1, types)
    first, second = (find(latent, b, codes) for b in (batches, 2 - batches))
    np.testing.assert_allclose(first.positions, second.positions, atol=1e-9)


def test_cells_are_worked_on_some_at_a_time(monkeypatch):
    latent, batches, types = make_cells(9)
    codes = np.where(np.random.default_rng(0).random(len(types)) < 0.5, -1, types)
    whole = correct(latent, batches, codes)
    monkeypatch.setattr(effects, "_CHUNK", 37)
    np.testing.assert_allclose(correct(latent, batches, codes).latent, whole.latent, atol=1e-9)


def test_means_are_asked_of_landmarks_alone_that_two_sites_hold():
    latent, batches, types = make_cells(10)
    latent[batches == 0] += 1000 * (types == 3)[batches == 0, None]  # one site's cells, far from all others
    asked = []
    find(latent, batches, np.full(len(types), -1), n_types=0, asked=asked)
    held, closed = None, 0
    for question, answers in asked:
        if question.step == "holders":
            held = [answer["holders"] for answer in answers]
        if question.step == "means":
            assert all((np.sum(held, axis=0) >= 2)[list(question.open)])
            closed += len(question.landmarks.types) - len(question.open)
    assert closed


def test_a_site_gives_nothing_of_landmarks_and_labels_of_few_cells():
    latent, batches, types = make_cells(11)
    codes = types.copy()
    codes[np.flatnonzero(types == 2)[4:]] = 1  # four cells of it are left, in one batch
    landmarks = find(latent, batches, types)
    site = LandmarkSums(latent, np.zeros(len(latent), dtype=int), codes, N_TYPES, min_cells=5)
    first = site.answer(Question("labels"))
    assert first["label_counts"][2] == 0
    assert not first["label_sums"][2].any()
    held = site.answer(Question("holders", landmarks))["holders"]
    sums = site.answer(Question("means", landmarks, range(len(landmarks.types))))
    few = held == 0
    assert few.any()
    assert not sums["cells"][few].any()
    assert not sums["positions"][few].any()


def test_a_few_labels_among_many_cells_count_with_the_nearest_cells():
    latent = np.arange(20.0)[:, None]
    codes = np.full(20, -1)
    codes[[3, 15]] = 0, 1
    evidence = weigh_labels(latent, codes, 2, min_cells=5)
    np.testing.assert_allclose(evidence.sum(axis=0), 1)
    np.testing.assert_array_equal(np.flatnonzero(evidence[:, 0]), [1, 2, 3, 4, 5])
    assert evidence.max() == 0.2
    assert not weigh_labels(latent, np.where(codes < 0, 1, codes), 2, min_cells=5)[:, 0].any()


def test_landmarks_are_the_same_once_written_and_read():
    latent, batches, types = make_cells(12)
    for n_types in (N_TYPES, 0):
        codes = types if n_types else np.full(len(types), -1)
        landmarks = find(latent, batches, codes, n_types=n_types)
        again = Landmarks.from_json(landmarks.to_json())
        np.testing.assert_array_equal(
            move_to_landmarks(latent, batches, codes, again).latent,
            move_to_landmarks(latent, batches, codes, landmarks).latent,
        )
