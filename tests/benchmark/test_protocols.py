"""What each protocol tells a method, and what it is scored with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedscgen.benchmark._cells import UNLABELLED
from fedscgen.benchmark._protocols import (
    give_all,
    give_coarser,
    hide_newcomer,
    hide_share,
    hide_site,
    hold_out,
    rename_type,
    replace_share,
    split_type,
)

N = 240
BATCHES = np.repeat(["x", "y", "z"], N // 3)
LABELS = np.resize(["B", "B", "NK", "T"], N)
PROTOCOLS = {
    "hide_share": lambda seed: hide_share(LABELS, BATCHES, 0.5, seed),
    "replace_share": lambda seed: replace_share(LABELS, BATCHES, 0.2, seed),
    "rename_type": lambda seed: rename_type(LABELS, BATCHES, seed),
    "split_type": lambda seed: split_type(LABELS, BATCHES, seed),
}


@st.composite
def tables(draw):
    """Labels and batches of some cells."""
    n_cells = draw(st.integers(2, 60))
    names = st.lists(st.sampled_from("abc"), min_size=n_cells, max_size=n_cells)
    return np.array(draw(names)), np.array(draw(names))


@given(tables(), st.floats(0.01, 0.99), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_what_is_hidden_is_never_given_and_is_all_that_is_scored(table, share, seed):
    labels, batches = table
    labelling = hide_share(labels, batches, share, seed)
    hidden = labelling.given == UNLABELLED
    assert (labelling.scored == hidden).all()
    assert (labelling.asked == hidden).all()
    assert (labelling.given[~hidden] == labels[~hidden]).all()
    assert (labelling.truth == labels).all()
    for batch in np.unique(batches):
        assert hidden[batches == batch].sum() == round(share * (batches == batch).sum()), "the share of every batch"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_seed_draws_the_same_cells_again_and_another_seed_others(name):
    protocol = PROTOCOLS[name]
    assert (protocol(3).given == protocol(3).given).all()
    assert any((protocol(3).given != protocol(seed).given).any() for seed in range(4, 9))
    assert (protocol(3).truth == LABELS).all()


def test_a_site_without_labels_is_scored_with_the_others():
    site, newcomer = hide_site(LABELS, BATCHES, "y"), hide_newcomer(LABELS, BATCHES, "y")
    for labelling in (site, newcomer):
        assert ((labelling.given == UNLABELLED) == (BATCHES == "y")).all()
        assert (labelling.asked == (BATCHES == "y")).all()
        assert labelling.scored.all()
    assert not site.held_out.any()
    assert (newcomer.held_out == (BATCHES == "y")).all()


def test_a_batch_that_is_held_out_keeps_its_labels():
    labelling = hold_out(LABELS, BATCHES, "y")
    assert (labelling.given == LABELS).all()
    assert (labelling.held_out == (BATCHES == "y")).all()
    assert not labelling.asked.any()


@pytest.mark.parametrize(("sites", "n_sites"), [("one", 1), ("all", 3)])
def test_wrong_labels_are_those_of_other_types(sites, n_sites):
    labelling = replace_share(LABELS, BATCHES, 0.2, 5, sites=sites)
    wrong = labelling.given != LABELS
    assert (labelling.asked == wrong).all()
    assert len(np.unique(BATCHES[wrong])) == n_sites
    assert wrong.sum() == n_sites * 16
    assert set(labelling.given) == set(LABELS)
    assert labelling.scored.all()


def test_each_other_type_is_as_likely_a_mistake():
    labels, batches = np.resize(["a", "b", "c", "d"], 40_000), np.full(40_000, "x")
    labelling = replace_share(labels, batches, 0.5, 0, sites="all")
    mistakes = labelling.given[labelling.asked & (labels == "a")]
    shares = [np.mean(mistakes == name) for name in "bcd"]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)


def test_a_type_is_renamed_at_one_of_the_batches_that_hold_it():
    labelling = rename_type(LABELS, BATCHES, 1, cell_type="NK")
    renamed = labelling.given != LABELS
    (batch,) = np.unique(BATCHES[renamed])
    assert (renamed == ((LABELS == "NK") & (batch == BATCHES))).all()
    assert set(labelling.given[renamed]) == {f"NK of {batch}"}
    assert rename_type(LABELS, BATCHES, 1).cell_type == "B", "the commonest"
    assert {tuple(np.unique(BATCHES[rename_type(LABELS, BATCHES, seed).asked])) for seed in range(20)} == {
        ("x",), ("y",), ("z",),
    }  # fmt: skip


def test_a_new_name_is_unlike_all_others():
    labels = np.where(np.arange(N) % 4 == 3, "B, a", LABELS)
    assert set(split_type(labels, BATCHES, 0, cell_type="B").given) == {"B, a", "B, a'", "B, b", "NK"}


def test_a_type_is_split_70_to_30_and_30_to_70_in_turn():
    labelling = split_type(LABELS, BATCHES, 0)
    of_type = LABELS == "B"
    shares = [np.mean(labelling.given[of_type & (batch == BATCHES)] == "B, a") for batch in "xyz"]
    np.testing.assert_allclose(shares, [0.7, 0.3, 0.7], atol=0.02)
    assert set(labelling.given[of_type]) == {"B, a", "B, b"}
    assert (labelling.given[~of_type] == LABELS[~of_type]).all()


def test_coarser_labels_are_given_and_the_finer_ones_count():
    coarse = np.where(LABELS == "NK", "T", LABELS)
    labelling = give_coarser(LABELS, coarse)
    assert (labelling.given == coarse).all()
    assert (labelling.truth == LABELS).all()


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (lambda: give_all(["a", UNLABELLED]), "a cell type is called 'unlabelled', as cells without a label"),
        (lambda: hide_share(LABELS, BATCHES, 1.0, 0), "a share of 1.0: it lies between 0 and 1"),
        (lambda: replace_share(["a", "a"], ["x", "y"], 0.5, 0), "all cells are of the type 'a'"),
        (lambda: replace_share(LABELS, BATCHES, 0.5, 0, sites="two"), "unknown choice of noisy sites 'two'"),
        (
            lambda: split_type(LABELS, BATCHES, 0, cell_type="Mast"),
            "no cell type 'Mast' is held by two batches: choose",
        ),
        (lambda: rename_type(["a", "b"], ["x", "y"], 0), "no cell type is held by two batches: choose one of none"),
    ],
)
def test_what_can_not_be_done_is_said(protocol, message):
    with pytest.raises(ValueError, match=message):
        protocol()
