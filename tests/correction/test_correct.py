"""Corrected cells, whatever the references: where they move, what they are called, and whose label is doubted."""

import numpy as np
import pandas as pd
import pytest

from fedscgen._types import References
from fedscgen.correction import (
    UNKNOWN,
    BatchFit,
    Landmarks,
    LandmarkSums,
    NoSharedLabelError,
    choose_references,
    correct_latent,
    expect_cells,
    find_landmarks,
    find_own_references,
    include_batches,
    label_positions,
    label_stats,
    latent_shifts,
    move_to_landmarks,
    name_cells,
    name_no_type,
    read_references,
    shift_latent,
)

NAMES = [f"type{t}" for t in range(4)]


def make_cells(seed=0, n_cells=600, distance=5.0):
    """Latent vectors, batches and types: normal distributions in three batches, each of which is moved as a whole."""
    rng = np.random.default_rng(seed)
    types, batches = rng.integers(4, size=n_cells), rng.integers(3, size=n_cells)
    centres, moves = distance * rng.normal(size=(4, 6)), rng.normal(size=(3, 6))
    latent = centres[types] + moves[batches] + rng.normal(size=(n_cells, 6))
    return latent.astype(np.float32), categorical(batches, "site"), categorical(types, "type")


def categorical(codes, name):
    return pd.Categorical([f"{name}{code}" for code in codes])


def without(labels, hidden):
    return pd.Categorical(np.where(hidden, None, np.asarray(labels, dtype=object)), categories=labels.categories)


def with_wrong_labels(labels, share=0.1, seed=0):
    """These labels, of which some are another type's, and which those are."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < share
    codes = np.where(wrong, labels.codes + rng.integers(1, 4, size=len(labels)), labels.codes) % 4
    return pd.Categorical.from_codes(codes, labels.categories), wrong


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_by_references_of_each_type_cells_move_by_the_difference_of_means(kind):
    latent, batches, labels = make_cells()
    references = find_own_references(latent, batches, labels, kind=kind)
    assert isinstance(references, References)
    correction = correct_latent(latent, batches, labels, references)
    for row, name in enumerate(references.labels):
        for batch in batches.categories:
            cells = np.asarray(labels == name) & np.asarray(batches == batch)
            expected = latent[cells] + references.means[row] - latent[cells].mean(axis=0)
            np.testing.assert_allclose(correction.latent[cells], expected, atol=1e-4)
    assert correction.embedding is correction.latent
    assert correction.latent.dtype == np.float32
    assert correction.confidence is None
    assert correction.conflict is None


def test_by_landmarks_cells_move_as_all_sites_fit_them_and_are_scaled_afterwards():
    latent, batches, labels = make_cells()
    landmarks = find_own_references(latent, batches, labels)
    correction = correct_latent(latent, batches, labels, landmarks)
    expected = move_to_landmarks(latent, batches.codes, labels.codes.astype(int), landmarks)
    np.testing.assert_allclose(correction.latent, expected.latent, atol=1e-5)
    np.testing.assert_allclose(correction.embedding, landmarks.embed(expected.latent), atol=1e-4)
    assert np.abs(correction.embedding - correction.latent).max() > 1
    assert correction.latent.dtype == correction.embedding.dtype == np.float32
    assert list(correction.cell_types) == list(labels)
    np.testing.assert_allclose(correction.confidence, expected.guess[np.arange(len(latent)), labels.codes])


def test_own_references_are_those_of_a_federation_with_a_site_for_each_batch():
    latent, batches, labels = make_cells(1)
    codes, of_sites = labels.codes.astype(int), [np.asarray(batches == batch) for batch in batches.categories]
    sites = [LandmarkSums(latent[own], batches.codes[own], codes[own], 4, min_cells=3) for own in of_sites]

    def sum_over_sites(question):
        answers = [site.answer(question) for site in sites]
        return {name: sum(answer[name] for answer in answers) for name in answers[0]}

    landmarks = find_own_references(latent, batches, labels, min_cells=3, seed=7)
    assert landmarks.to_json() == find_landmarks(sum_over_sites, NAMES, seed=7).to_json()
    stats = label_stats(latent, batches.codes, labels.codes, list(batches.categories), NAMES)
    dominant = find_own_references(latent, batches, labels, kind="dominant")
    assert dominant.to_json() == choose_references(stats, kind="dominant").to_json()


def test_types_of_few_cells_are_none_of_the_landmarks():
    latent, batches, labels = make_cells(2)
    rare = np.asarray(labels == "type3") & np.asarray(batches != "site0")
    rare[np.flatnonzero(rare)[:4]] = False
    keep = ~rare
    found = find_own_references(latent[keep], batches[keep], labels[keep], min_cells=5)
    assert found.labels == tuple(NAMES[:3])
    assert find_own_references(latent[keep], batches[keep], labels[keep]).labels == tuple(NAMES)


def test_without_a_shared_type_cells_align_only_if_some_have_no_label():
    latent, batches, labels = make_cells(3)
    own = pd.Categorical([f"{batch}-{label}" for batch, label in zip(batches, labels, strict=True)])
    with pytest.raises(NoSharedLabelError, match="no cell type has 1 or more cells in two batches"):
        find_own_references(latent, batches, own)
    unlabelled = without(own, np.arange(len(own)) == 0)
    with pytest.warns(UserWarning, match="cells move without labels, and none gets a name: no cell type has 1 or more"):
        assert find_own_references(latent, batches, unlabelled).labels == ()
    with pytest.raises(NoSharedLabelError):
        find_own_references(latent, batches, unlabelled, kind="dominant")
    one = batches == "site0"
    for some in (labels, without(labels, np.ones(len(labels), dtype=bool))):
        with pytest.raises(NoSharedLabelError, match=r"all cells are of one batch \(site0\), .* \(batch_key=...\), or"):
            find_own_references(latent[one], batches[one], some[one])
    with pytest.raises(ValueError, match="unknown kind of reference 'median': choose one of 'landmarks', 'dominant', "):
        find_own_references(latent, batches, labels, kind="median")


def test_what_can_be_done_without_a_shared_type_is_said_and_nothing_else():
    latent, batches, labels = make_cells(3)
    own = pd.Categorical([f"{batch}-{label}" for batch, label in zip(batches, labels, strict=True)])
    remedies = {}
    for kind in ("landmarks", "mean"):
        for min_cells in (1, 5):
            with pytest.raises(NoSharedLabelError) as raised:
                find_own_references(latent, batches, own, kind=kind, min_cells=min_cells)
            remedies[kind, min_cells] = ("labels_key=None" in str(raised.value), "lower min_cells" in str(raised.value))
    assert remedies == {
        ("landmarks", 1): (True, False), ("landmarks", 5): (True, True), ("mean", 1): (False, False),
        ("mean", 5): (False, True),
    }  # fmt: skip
    with pytest.raises(NoSharedLabelError, match="all cells are of one batch"):
        find_own_references(latent, pd.Categorical(["one"] * len(labels)), labels, kind="mean")


def test_labels_that_are_of_no_use_are_mentioned_once_and_missing_ones_are_not(caplog):
    latent, batches, labels = make_cells(3)
    own = pd.Categorical([f"{batch}-{label}" for batch, label in zip(batches, labels, strict=True)])
    with pytest.warns(
        UserWarning, match="check that the labels are spelled alike everywhere, or correct without label"
    ) as warned:
        find_own_references(latent, batches, without(own, np.arange(len(own)) == 0))
    assert len(warned) == 1
    find_own_references(latent, batches, without(own, np.ones(len(own), dtype=bool)))  # warnings are errors here
    assert not caplog.text, "else the line would stand in a log twice"


def test_references_of_another_latent_space_are_refused_with_both_sizes():
    latent, batches, labels = make_cells()
    short = latent[:, :4]
    for kind in ("landmarks", "mean"):
        references = find_own_references(short, batches, labels, kind=kind)
        with pytest.raises(ValueError, match=r"of 4 latent dimensions don't fit cells of 6: .* \(n_latent=4\)"):
            correct_latent(latent, batches, labels, references)
    shifts = latent_shifts(label_stats(short, batches.codes, labels.codes, list(batches.categories), NAMES), references)
    with pytest.raises(ValueError, match="shifts of 4 latent dimensions don't fit cells of 6"):
        shift_latent(latent, batches, labels, shifts)
    stats = label_stats(latent, batches.codes, labels.codes, list(batches.categories), NAMES)
    with pytest.raises(ValueError, match="references of 4 latent dimensions don't fit cells of 6"):
        include_batches(references, stats)


def test_landmarks_without_types_move_cells_and_tell_nothing_of_them():
    latent, batches, labels = make_cells(4)
    landmarks = find_own_references(latent, batches, without(labels, np.ones(len(labels), dtype=bool)))
    correction = correct_latent(latent, batches, labels, landmarks)
    assert np.abs(correction.latent - latent).min(axis=0).max() > 0.01
    assert correction[2:] == (None, None, None, ())


@pytest.mark.parametrize("options", [{"shrink": True}, {"unlabeled": "knn"}, {"unlabeled": "mean"}])
def test_what_is_for_references_of_each_type_is_refused_with_landmarks(options):
    latent, batches, labels = make_cells()
    ((name, value),) = options.items()
    message = f"^{name}={value!r}: these are for references of each type; cells move to landmarks by one rule"
    with pytest.raises(ValueError, match=message) as raised:
        correct_latent(latent, batches, labels, find_own_references(latent, batches, labels), **options)
    assert "references=model.get_references(kind='mean')" in str(raised.value)


def test_references_by_type_name_cells_without_a_label_by_neighbours_if_at_all():
    latent, batches, labels = make_cells(5)
    partial = without(labels, np.arange(len(labels)) % 3 == 0)
    references = find_own_references(latent, batches, partial, kind="dominant")
    default, knn, leave = (
        correct_latent(latent, batches, partial, references, unlabeled=how) for how in (None, "knn", "leave")
    )
    np.testing.assert_array_equal(default.latent, knn.latent)
    assert (np.asarray(default.cell_types) == np.asarray(labels)).mean() > 0.98
    np.testing.assert_array_equal(leave.latent[partial.codes < 0], latent[partial.codes < 0])
    assert leave.cell_types is None
    with pytest.raises(ValueError, match="unknown treatment of unlabeled cells 'drop'"):
        correct_latent(latent, batches, partial, references, unlabeled="drop")


def test_references_of_either_kind_are_read():
    latent, batches, labels = make_cells()
    for kind, cls in (("landmarks", Landmarks), ("dominant", References), ("mean", References)):
        references = find_own_references(latent, batches, labels, kind=kind)
        again = read_references(references.to_json())
        assert isinstance(again, cls)
        assert (again.kind, again.to_json()) == (kind, references.to_json())


def test_positions_of_labels_tell_unknown_ones_from_none():
    labels = pd.Categorical(["b", None, "c", "a", "b"])
    np.testing.assert_array_equal(label_positions(labels, ["b", "a", "z"]), [0, -1, 3, 1, 0])
    np.testing.assert_array_equal(label_positions(labels, []), [0, -1, 0, 0, 0])


def test_a_batch_is_expected_to_have_its_part_of_the_cells_without_a_label():
    np.testing.assert_allclose(expect_cells(np.array([3, 1, 0]), 40), [30, 10, 0])
    np.testing.assert_allclose(expect_cells(np.array([3, 1]), 4), [3, 1])
    np.testing.assert_allclose(expect_cells(np.array([0, 0]), 40), [0, 0])


PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.0, 1.0, 0.0], [0.1, 0.05, 0.85]])


@pytest.mark.parametrize(
    ("min_confidence", "expected"),
    [
        (0.0, ["a", "b", "b", "a"]),
        (0.5, ["a", UNKNOWN, "b", UNKNOWN]),
        (1.0, [UNKNOWN, UNKNOWN, "b", UNKNOWN]),
    ],
)
def test_cells_are_named_from_a_threshold_on(min_confidence, expected):
    assert list(name_cells(PROBABILITIES, ["a", "b"], min_confidence)) == expected


def test_a_type_that_is_called_unknown_is_told_from_none():
    assert name_no_type(["a", "b"]) == UNKNOWN
    assert list(name_cells(PROBABILITIES, ["a", UNKNOWN], 0.5)) == [
        "a", "unknown (none of these)", UNKNOWN, "unknown (none of these)"
    ]  # fmt: skip
    assert name_no_type([UNKNOWN, "unknown (none of these)"]) not in (UNKNOWN, "unknown (none of these)")


def test_the_threshold_is_for_cells_without_a_label_alone():
    latent, batches, labels = make_cells(6, distance=1.0)
    partial = without(labels, np.arange(len(labels)) % 2 == 0)
    landmarks = find_own_references(latent, batches, partial)
    told = {}
    for threshold in (0.0, 0.5, 1.0):
        found = correct_latent(latent, batches, partial, landmarks, min_confidence=threshold)
        told[threshold] = np.asarray(found.cell_types)
        np.testing.assert_array_equal(told[threshold][1::2], np.asarray(labels)[1::2])
        unsure = found.confidence[::2] < threshold
        np.testing.assert_array_equal(told[threshold][::2] == UNKNOWN, unsure)
    assert 0.02 < (told[0.5][::2] == UNKNOWN).mean() < 0.95
    assert (told[1.0][::2] == UNKNOWN).mean() > 0.9


def test_confidence_is_missing_exactly_for_types_that_the_landmarks_lack():
    latent, batches, labels = make_cells(7)
    names = np.asarray(labels, dtype=object)
    names[np.asarray(labels == "type2") & np.asarray(batches == "site1")] = "own"  # of one batch alone
    names[::7] = None
    partial = pd.Categorical(names)
    landmarks = find_own_references(latent, batches, partial)
    assert landmarks.labels == tuple(NAMES)
    correction = correct_latent(latent, batches, partial, landmarks)
    own = names == "own"
    assert own.any()
    np.testing.assert_array_equal(np.isnan(correction.confidence), own)
    assert ((correction.confidence[~own] >= 0) & (correction.confidence[~own] <= 1)).all()
    assert (np.asarray(correction.cell_types)[own] == "own").all()
    assert not correction.conflict[own].any()


def test_own_labels_are_never_overwritten():
    latent, batches, labels = make_cells(8)
    given, wrong = with_wrong_labels(labels)
    partial = without(given, np.arange(len(labels)) % 4 == 0)
    known = partial.codes >= 0
    correction = correct_latent(latent, batches, partial, find_own_references(latent, batches, partial))
    assert correction.conflict[known & wrong].any()
    np.testing.assert_array_equal(np.asarray(correction.cell_types)[known], np.asarray(given)[known])
    assert (np.asarray(correction.cell_types) == np.asarray(labels))[~known].mean() > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_most_wrong_labels_are_called_into_question_and_few_right_ones(seed):
    latent, batches, labels = make_cells(seed, distance=3.0)
    given, wrong = with_wrong_labels(labels)
    correction = correct_latent(latent, batches, given, find_own_references(latent, batches, given))
    assert correction.conflict.dtype == bool
    assert correction.conflict[wrong].mean() > 0.9
    assert correction.conflict[~wrong].mean() < 0.02
    assert correction.confidence[wrong].mean() < 0.2
    assert correction.confidence[~wrong].mean() > 0.7, "a tenth of all labels is wrong, and so may this one be"


def test_a_label_is_called_into_question_by_classifier_and_neighbours_together():
    """Cell by cell: another type has half the probability, and less than half of 15 neighbours share the label."""
    latent, batches, labels = make_cells(13, distance=1.0)
    given, _ = with_wrong_labels(labels)
    partial = without(given, np.arange(len(labels)) % 5 == 0)
    landmarks = find_own_references(latent, batches, partial)
    correction = correct_latent(latent, batches, partial, landmarks)
    codes = label_positions(partial, landmarks.labels)
    guess = move_to_landmarks(latent, batches.codes, codes, landmarks).guess[:, :4]
    by_classifier, by_neighbours = np.zeros((2, len(latent)), dtype=bool)
    vectors = correction.embedding
    for i in np.flatnonzero(codes >= 0):
        others = np.flatnonzero((batches == batches[i]) & (codes >= 0) & (np.arange(len(latent)) != i))
        nearest = others[((vectors[others] - vectors[i]) ** 2).sum(axis=1).argsort()[:15]]
        by_classifier[i] = guess[i].argmax() != codes[i] and guess[i].max() >= 0.5
        by_neighbours[i] = (codes[nearest] == codes[i]).sum() < 7.5
    np.testing.assert_array_equal(correction.conflict, by_classifier & by_neighbours)
    assert (by_classifier & ~by_neighbours).any()
    assert (by_neighbours & ~by_classifier).any()


@pytest.mark.parametrize("seed", range(3))
def test_of_cells_that_are_80_percent_sure_about_80_percent_are_right(seed):
    latent, batches, labels = make_cells(seed, n_cells=4500, distance=1.0)
    hidden = np.random.default_rng(seed).random(len(labels)) < 0.5
    partial = without(labels, hidden)
    landmarks = find_own_references(latent, batches, partial)
    correction = correct_latent(latent, batches, partial, landmarks, min_confidence=0.0)
    asked = hidden & (correction.confidence > 0.7) & (correction.confidence < 0.9)
    assert asked.sum() > 200
    right = (np.asarray(correction.cell_types) == np.asarray(labels))[asked].mean()
    assert right == pytest.approx(correction.confidence[asked].mean(), abs=0.08)


def test_cells_far_from_all_types_are_unknown():
    """A type of which no cell has a label lies where the others do not."""
    latent, batches, labels = make_cells(10)
    centre = latent.mean(axis=0)
    new = np.asarray(labels == "type3") & (np.arange(len(labels)) % 4 == 0)
    latent[new] += 4 * (latent[np.asarray(labels == "type3")].mean(axis=0) - centre)
    partial = without(labels, new | (np.arange(len(labels)) % 3 == 0))
    correction = correct_latent(latent, batches, partial, find_own_references(latent, batches, partial))
    told = np.asarray(correction.cell_types)
    assert (told[new] == UNKNOWN).mean() > 0.9
    assert (told[~new] == UNKNOWN).mean() < 0.05
    assert correction.confidence[new].max() < 0.5


def test_shifts_that_are_given_move_types_that_they_name():
    latent, batches, labels = make_cells()
    stats = label_stats(latent, batches.codes, labels.codes, list(batches.categories), NAMES)
    references = choose_references(stats)
    shifts = latent_shifts(stats, references)
    np.testing.assert_array_equal(
        shift_latent(latent, batches, labels, shifts).latent, correct_latent(latent, batches, labels, references).latent
    )


def test_a_batch_is_corrected_by_landmarks_and_itself_alone():
    latent, batches, labels = make_cells(11)
    landmarks = find_own_references(latent, batches, labels)
    whole = correct_latent(latent, batches, labels, landmarks)
    one = np.asarray(batches == "site1")
    alone = correct_latent(latent[one], batches[one], labels[one], landmarks)
    np.testing.assert_array_equal(alone.latent, whole.latent[one])
    np.testing.assert_array_equal(alone.confidence, whole.confidence[one])
    fit = BatchFit(latent[one], labels.codes[one].astype(int), landmarks, n_steps=6)
    np.testing.assert_allclose(fit.result().latent, whole.latent[one], atol=1e-5)
