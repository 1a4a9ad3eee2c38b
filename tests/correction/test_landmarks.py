"""Landmarks that several sites find by sums, and cells that are moved to them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from fedscgen.correction import (
    Classifier,
    Landmarks,
    LandmarkSums,
    NoMoreSumsError,
    Question,
    apply_shifts,
    choose_references,
    find_landmarks,
    label_stats,
    latent_shifts,
    move_to_landmarks,
    weigh_labels,
)
from fedscgen.correction import _classifier as classifiers
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
@settings(max_examples=20, deadline=None)
def test_labelled_cells_move_as_ridge_regression_says(seed):
    """With one landmark per type, whose cells are known, all is a closed formula."""
    latent, batches, types = make_cells(seed, n_cells=40)
    landmarks = find(latent, batches, types, min_cells=1, label_noise=0)
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
        weights, gaps = 5 * n / (n + 5), means - one_per_type.positions
        shift = (weights[:, None] * gaps).sum(axis=0) / (weights.sum() + 1)
        offsets = (n / (n + 5))[:, None] * (gaps - shift)
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


@pytest.mark.parametrize(("seed", "batch_effect"), [(3, 3.0), (5, 3.0), (1, 8.0), (4, 8.0)])
def test_a_batch_without_labels_moves_with_the_types_of_the_others(seed, batch_effect):
    latent, batches, types = make_cells(seed, batch_effect=batch_effect)
    moved = correct(latent, batches, np.where(batches == 2, -1, types))
    assert (moved.belief.argmax(axis=1) == types)[batches == 2].mean() > 0.98
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved.latent))
    assert after < 0.1 * before


def test_a_batch_without_labels_meets_the_others_although_its_types_lie_far_off():
    latent, batches, types = make_cells(16, batch_effect=1.0)
    offsets = 4.5 * np.random.default_rng(0).normal(size=(N_TYPES, N_LATENT))
    latent[batches == 2] += offsets[types[batches == 2]]
    moved = correct(latent, batches, np.where(batches == 2, -1, types)).latent
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved))
    assert after < 0.35 * before, "more than the shrinkage of offsets leaves"


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


def test_the_density_of_a_type_is_that_of_a_t_distribution():
    rng = np.random.default_rng(0)
    covariance = np.cov(rng.normal(size=(3, 50)) * [[1], [2], [3]])
    mean, vectors = rng.normal(size=(2, 3)), 4 * rng.normal(size=(40, 3))
    wide = 100 * np.eye(3)
    shares = np.array([0.2, 0.7, 0.1])
    classifier = Classifier(mean, np.linalg.inv(covariance), np.zeros(3), np.linalg.inv(wide), shares)
    freedom = classifiers._FREEDOM
    expected = [
        multivariate_t(mean[0], covariance * (freedom - 2) / freedom, df=freedom).logpdf(vectors) + np.log(0.2),
        multivariate_t(mean[1], covariance * (freedom - 2) / freedom, df=freedom).logpdf(vectors) + np.log(0.7),
        multivariate_normal(np.zeros(3), wide).logpdf(vectors) + np.log(0.1),
    ]
    given = classifier.log_densities(vectors)
    np.testing.assert_allclose(given - given[:, :1], (np.array(expected) - expected[0]).T, atol=1e-9)


def test_cells_in_the_tails_of_a_known_type_are_still_of_it():
    latent, batches, types = make_cells(15, n_cells=600, batch_effect=1.0)
    rng = np.random.default_rng(0)
    for batch, kind in np.ndindex(3, N_TYPES):
        cells = np.flatnonzero((batches == batch) & (types == kind))
        centre = latent[cells].mean(axis=0)
        latent[cells] = centre + (latent[cells] - centre) / np.sqrt(rng.chisquare(3, (len(cells), 1)) / 3)
    hidden = rng.random(len(types)) < 0.8
    belief = correct(latent, batches, np.where(hidden, -1, types)).belief
    assert belief[hidden, N_TYPES].mean() < 0.005


def test_the_order_of_sites_does_not_matter():
    latent, batches, types = make_cells(8)
    codes = np.where(np.random.default_rng(0).random(len(types)) < 0.5, -1, types)
    first, second = (find(latent, b, codes) for b in (batches, 2 - batches))
    np.testing.assert_allclose(first.positions, second.positions, atol=1e-9)


def test_the_order_of_types_does_not_matter():
    """Their names may be hashes, which come in another order."""
    latent, batches, types = make_cells(8)
    codes = np.where(np.random.default_rng(0).random(len(types)) < 0.5, -1, types)
    order = np.array([2, 0, 3, 1])
    first, second = correct(latent, batches, codes), correct(latent, batches, np.where(codes < 0, -1, order[codes]))
    np.testing.assert_allclose(second.latent, first.latent, atol=1e-9)
    np.testing.assert_allclose(second.guess[:, order], first.guess[:, :-1], atol=1e-9)


def test_cells_are_worked_on_some_at_a_time(monkeypatch):
    latent, batches, types = make_cells(9)
    codes = np.where(np.random.default_rng(0).random(len(types)) < 0.5, -1, types)
    whole = correct(latent, batches, codes)
    monkeypatch.setattr(effects, "_CHUNK", 37)
    np.testing.assert_allclose(correct(latent, batches, codes).latent, whole.latent, atol=1e-9)


@pytest.mark.parametrize("min_holders", [1, 2, 3])
def test_means_are_asked_of_landmarks_alone_that_enough_sites_hold(min_holders):
    latent, batches, types = make_cells(10)
    latent[batches == 0] += 1000 * (types == 3)[batches == 0, None]  # one site's cells, far from all others
    asked = []
    find(latent, batches, np.full(len(types), -1), n_types=0, asked=asked, min_holders=min_holders)
    held, closed = None, 0
    for question, answers in asked:
        if question.step == "holders":
            held = [answer["holders"] for answer in answers]
        if question.step == "means":
            assert list(question.open) == list(np.flatnonzero(np.sum(held, axis=0) >= min_holders))
            closed += len(question.landmarks.types) - len(question.open)
    assert closed


def test_the_more_sites_must_hold_a_landmark_the_fewer_are_opened():
    latent, batches, types = make_cells(18)
    numbers, of_one_site = [], []
    for min_holders in (1, 2, 3):
        asked = []
        landmarks = find(latent, batches, types, asked=asked, min_holders=min_holders)
        first = next(question for question, _ in asked if question.step == "means")  # all begin at the same places
        numbers.append(len(first.open))
        of_one_site.append((landmarks.n_cells > 0).sum())
    assert numbers[0] > numbers[1] > numbers[2] > 0
    assert of_one_site[0] > of_one_site[2]


@pytest.mark.parametrize("n_types", [N_TYPES, 0])
def test_sites_are_asked_how_likely_their_labels_are_once_at_the_end(n_types):
    latent, batches, types = make_cells(14)
    asked = []
    landmarks = find(latent, batches, types if n_types else np.full(len(types), -1), n_types=n_types, asked=asked)
    steps = [question.step for question, _ in asked]
    assert steps == ["labels", *["holders", "means"] * (3 if n_types else 5), *["calibration"] * (n_types > 0)]
    if n_types:
        question, answers = asked[-1]
        likelihoods = sum(answer["log_likelihoods"] for answer in answers)
        assert landmarks.classifier.temperature == question.landmarks.classifier.calibrate(likelihoods).temperature


def test_a_site_with_few_labels_that_tell_answers_nothing_to_calibrate_with():
    latent, batches, types = make_cells(15)
    landmarks = find(latent, batches, types)
    question, own = Question("calibration", landmarks), np.flatnonzero(batches == 0)
    for n_labels, min_cells, told in ((4, 5, False), (5, 5, True), (0, 1, False), (1, 1, True)):
        codes = np.full(len(own), -1)
        codes[np.flatnonzero(types[own] == 2)[:n_labels]] = 2
        site = LandmarkSums(latent[own], np.zeros(len(own), dtype=int), codes, N_TYPES, min_cells)
        assert site.answer(question)["log_likelihoods"].shape == (25,)
        assert bool(site.answer(question)["log_likelihoods"].any()) == told


def test_labels_that_the_federation_does_not_know_tell_nothing_of_how_likely_labels_are():
    latent, batches, types = make_cells(16)
    landmarks = find(latent, batches, types)
    codes = np.where(types == 0, N_TYPES, types)
    sites = [LandmarkSums(latent, batches, some, N_TYPES, 5) for some in (codes, np.full(len(types), N_TYPES))]
    whole, none = (site.answer(Question("calibration", landmarks))["log_likelihoods"] for site in sites)
    assert whole.any()
    assert not none.any()


def test_labelled_batches_meet_however_far_apart_they_lie():
    latent, batches, types = make_cells(19, batch_effect=30.0)
    moved = correct(latent, batches, types).latent
    before, after = (distance_between_batches(cells, batches, types) for cells in (latent, moved))
    assert after < 0.1 * before


@pytest.mark.parametrize("batch_effect", [1.0, 12.0])
def test_a_batch_whose_few_labels_nobody_shares_meets_the_others_with_its_cells_without_a_label(batch_effect):
    latent, batches, types = make_cells(22, batch_effect=batch_effect)
    codes = np.where(batches == 2, -1, types)
    codes[np.flatnonzero((batches == 2) & (types == 3))[::3]] = N_TYPES
    moved = correct(latent, batches, codes).latent
    assert distance_between_batches(moved, batches, types) < 1


def test_a_label_that_nobody_shares_never_makes_a_cell_one_of_a_known_type():
    """Also while cells without a label can only be of a known type, and labels may be wrong."""
    latent, batches, types = make_cells(23)
    landmarks = find(latent, batches, types, label_noise=0.1)
    codes = np.array([-1, N_TYPES])
    belief = effects.believe(latent[:2], codes, landmarks, known_only=True)
    assert (belief[:, N_TYPES] > 0).tolist() == [False, True]


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


def test_what_few_doubted_labels_leave_of_the_sums_is_not_given():
    """The rest of all cells would be little more than the one cell whose label is doubted."""
    latent, batches, types = make_cells()
    doubted = np.flatnonzero(batches == 1)[0]
    codes = types.copy()
    codes[doubted] = (types[doubted] + 1) % N_TYPES
    asked = []
    find(latent, batches, codes, asked=asked, label_noise=0.05)
    of_its_site = [answers[1] for question, answers in asked if question.step == "means"]
    assert of_its_site
    for sums in of_its_site:
        assert sums["n_cells"] == pytest.approx(sums["label_counts"].sum(), abs=1e-9)
        np.testing.assert_allclose(sums["sum"], sums["label_sums"].sum(axis=0), atol=1e-9)
        np.testing.assert_allclose(sums["products"], sums["label_products"], atol=1e-9)


def test_labels_that_are_all_likely_wrong_count_as_if_they_were_right():
    """Next to none lies with the type; left out, they would open another site's mean."""
    latent, batches, types = make_cells(20)
    landmarks = find(latent, batches, types, label_noise=0.2)
    latent, batches, codes = (cells[types < 3] for cells in (latent, batches, types))
    codes = codes.copy()
    codes[np.flatnonzero(codes == 0)[:6]] = 3
    site = LandmarkSums(latent, batches, codes, N_TYPES, min_cells=5)
    sure, doubting = (site.answer(Question("means", replace(landmarks, label_noise=noise))) for noise in (0.0, 0.2))
    assert doubting["label_counts"][3] == sure["label_counts"][3] == 6
    np.testing.assert_allclose(doubting["label_counts"], sure["label_counts"], rtol=0.2)


@pytest.mark.parametrize("label_noise", [0.0, 0.02])
def test_a_cell_without_a_label_counts_a_tenth_with_the_types_it_is_believed_to_be_of(label_noise):
    latent, batches, types = make_cells(22)
    landmarks = replace(find(latent, batches, types), label_noise=label_noise)
    latent, batches, types = (cells[batches == 0] for cells in (latent, batches, types))
    codes = np.where(np.random.default_rng(22).random(len(types)) < 0.5, -1, types)
    sums = LandmarkSums(latent, batches, codes, N_TYPES).answer(Question("means", landmarks))
    fit = effects.BatchFit(latent, codes, landmarks)
    shifted, belief = latent - fit.shift, fit.result().belief[:, :N_TYPES]
    told = np.eye(N_TYPES)[types] * (belief if label_noise else 1)
    evidence = np.where((codes < 0)[:, None], 0.1 * belief, told)
    np.testing.assert_allclose(sums["label_counts"], evidence.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(sums["label_sums"], evidence.T @ shifted, rtol=1e-9)
    np.testing.assert_allclose(sums["label_products"], (shifted * evidence.sum(axis=1)[:, None]).T @ shifted, rtol=1e-9)
    assert sums["n_cells"] == len(latent)


def test_nothing_is_given_of_a_few_cells_that_are_believed_to_be_of_a_type():
    latent, batches, types = make_cells(23)
    landmarks = find(latent, batches, types)
    here = (batches == 0) & (types != 2)
    here[np.flatnonzero((batches == 0) & (types == 2))[:4]] = True
    fit = effects.BatchFit(latent[here], np.full(here.sum(), -1), landmarks)
    assert (fit.result().belief.argmax(axis=1) == 2).sum() == 4
    site = LandmarkSums(latent[here], batches[here], np.full(here.sum(), -1), N_TYPES, min_cells=5)
    sums = site.answer(Question("means", landmarks))
    assert sums["label_counts"][2] == 0
    assert not sums["label_sums"][2].any()
    assert (sums["label_counts"][[0, 1, 3]] > 1).all()


def test_with_few_labels_cells_without_one_help_to_name_each_other(monkeypatch):
    shares = {}
    for weight in (0.0, 0.1):
        monkeypatch.setattr(effects, "_UNLABELLED", weight)
        shares[weight] = [name_hidden_cells(seed) for seed in range(5)]
    assert np.mean(shares[0.1]) > np.mean(shares[0.0]) + 0.05
    assert np.mean(shares[0.1]) > 0.9


def name_hidden_cells(seed):
    """Share of the cells that are named rightly, of types that lie near each other and of which few have a label."""
    rng = np.random.default_rng(seed)
    batches, types = np.repeat(np.arange(2), 300), rng.integers(N_TYPES, size=600)
    spread = np.array([4.0, 4.0, 0.4, 0.4, 0.4, 0.4])
    centres = np.array([[0, 0, a, b, 0, 0] for a in (-1, 1) for b in (-1, 1)])
    latent = centres[types] + rng.normal(size=(600, N_LATENT)) * spread + batches[:, None]
    labelled = np.concatenate([np.flatnonzero((batches == b) & (types == t))[:2] for b in range(2) for t in range(4)])
    codes = np.full(len(types), -1)
    codes[labelled] = types[labelled]
    guess = correct(latent, batches, codes).guess.argmax(axis=1)
    return (guess == types)[codes < 0].mean()


@pytest.mark.parametrize("n_answers", [0, 1, 2, 3, 6, 7])
def test_landmarks_stay_as_they_are_once_no_more_can_be_asked(n_answers):
    latent, batches, types = make_cells(21)
    site = LandmarkSums(latent, batches, types, N_TYPES)
    asked = []

    def sum_over_sites(question):
        if len(asked) == n_answers:
            raise NoMoreSumsError("a site is lost")
        asked.append(question)
        return {name: 3 * array for name, array in site.answer(question).items()}

    if n_answers < 3:
        with pytest.raises(NoMoreSumsError, match="a site is lost"):
            find_landmarks(sum_over_sites, ["a", "b", "c", "d"])
        return
    landmarks = find_landmarks(sum_over_sites, ["a", "b", "c", "d"])
    assert landmarks.n_cells.any()
    assert landmarks.classifier.temperature == 1, "never calibrated"


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
        landmarks = replace(landmarks, label_noise=0.1, classifier=replace(landmarks.classifier, temperature=2.5))
        again = Landmarks.from_json(json.loads(json.dumps(landmarks.to_json())))
        assert (again.labels, again.label_noise, again.classifier.temperature) == (landmarks.labels, 0.1, 2.5)
        assert again.to_json() == landmarks.to_json()
        assert again == landmarks
        np.testing.assert_array_equal(
            move_to_landmarks(latent, batches, codes, again).latent,
            move_to_landmarks(latent, batches, codes, landmarks).latent,
        )


def test_a_question_is_the_same_once_written_and_read():
    latent, batches, types = make_cells(18)
    landmarks = find(latent, batches, types)
    landmarks = replace(landmarks, classifier=replace(landmarks.classifier, temperature=2.5))
    site = LandmarkSums(latent, batches, types, N_TYPES, 5)
    for question in (
        Question("labels"),
        Question("holders", landmarks),
        Question("means", landmarks, [0, 3]),
        Question("calibration", landmarks),
    ):
        again = Question.from_json(json.loads(json.dumps(question.to_json())))
        assert (again.step, list(again.open)) == (question.step, list(question.open))
        assert again.to_json() == question.to_json()
        expected, found = site.answer(question), site.answer(again)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


def test_landmarks_differ_if_any_value_does():
    latent, batches, types = make_cells(12)
    landmarks = find(latent, batches, types)
    changed = [{name: getattr(landmarks, name) + 1} for name in ("types", "positions", "n_cells", "label_noise")]
    changed += [{"labels": landmarks.labels[::-1]}, {"positions": landmarks.positions[:-1]}]
    for name, value in vars(landmarks.classifier).items():
        changed.append({"classifier": replace(landmarks.classifier, **{name: value + 1e-12})})
    assert landmarks == replace(landmarks)
    assert not any(landmarks == replace(landmarks, **change) for change in changed)
    assert landmarks != "landmarks"


def test_a_site_fits_once_for_questions_about_the_same_landmarks_without_writing_them(monkeypatch):
    latent, batches, types = make_cells(24)
    landmarks = find(latent, batches, types)
    again, moved = Landmarks.from_json(landmarks.to_json()), replace(landmarks, positions=landmarks.positions + 1)
    monkeypatch.setattr(Landmarks, "to_json", None)
    site = LandmarkSums(latent, batches, types, N_TYPES)
    first, second, third = (site._fit(asked) for asked in (landmarks, again, moved))
    assert second is first
    assert third is not first


def test_the_embedding_is_along_the_axes_on_which_landmarks_differ():
    """Without labels nothing is scaled, so that what is left is a turn that leaves out the last axes."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(300, 12)) * 0.1
    latent[:, 3] += np.repeat([0, 8], 150)  # the only one on which cells form groups
    latent[:, 7] += rng.normal(size=300)  # varies, but within a group
    batches = np.arange(300) % 3
    landmarks = find(latent, batches, np.full(300, -1), n_types=0)
    embedded = landmarks.embed(latent)
    assert embedded.shape == (300, 10)
    assert abs(np.corrcoef(embedded[:, 0], latent[:, 3])[0, 1]) > 0.99
    whole = landmarks.embed(np.eye(12))
    np.testing.assert_allclose(whole.T @ whole, np.eye(10), atol=1e-9)


def test_groups_within_a_type_make_an_axis_of_the_embedding():
    """Once scaled, all directions vary alike within a type, but landmarks follow those on which cells form groups."""
    rng = np.random.default_rng(0)
    types, batches, group = rng.integers(2, size=1200), np.arange(1200) % 3, rng.integers(2, size=1200)
    latent = 0.1 * rng.normal(size=(1200, 13))
    latent[:, 2] += 10 * types
    latent[:, 5] += 4 * (2 * group - 1)
    embedded = find(latent, batches, types, n_types=2).embed(latent)
    assert abs(np.corrcoef(embedded[:, 0], types)[0, 1]) > 0.99
    assert abs(np.corrcoef(embedded[:, 1], group)[0, 1]) > 0.99


def test_an_effect_of_the_batch_makes_no_axis_of_the_embedding():
    latent, batches, types = make_cells(17, batch_effect=0)
    latent = np.concatenate([latent, 0.1 * np.random.default_rng(1).normal(size=(len(latent), 6))], axis=1)
    latent[:, -1] += 5 * batches  # where types don't differ
    landmarks = find(latent, batches, types)
    along = np.abs(landmarks.embed(np.eye(12))[-1])
    assert along[:3].max() < 0.1 * along.max()
