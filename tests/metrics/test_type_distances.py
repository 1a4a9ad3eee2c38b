import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedscgen.metrics import UndefinedMetricError, type_distance_inflation

N = 20  # cells of each type in each batch


@pytest.fixture
def cells():
    """Three types at two batches: positions, batches and types."""
    rng = np.random.default_rng(0)
    types, batch = np.tile(np.repeat([0, 1, 2], N), 2), np.repeat([0, 1], 3 * N)
    centres = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]])
    return rng.normal(scale=0.1, size=(len(types), 3)) + centres[types], batch, types


@given(st.lists(st.floats(-9, 9), min_size=6, max_size=6), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_a_shift_of_each_batch_as_a_whole_undone_inflates_nothing(shifts, scale):
    """What was added to whole batches is taken away, and the unit of length is another."""
    rng = np.random.default_rng(1)
    types, batch = np.tile(np.repeat([0, 1, 2], N), 2), np.repeat([0, 1], 3 * N)
    positions = rng.normal(size=(len(types), 3)) + 5 * np.eye(3)[types]
    before = positions + np.reshape(shifts, (2, 3))[batch]
    assert type_distance_inflation(before, scale * positions, batch, types) == 0


def test_pairs_that_were_moved_apart_are_counted(cells):
    before, batch, types = cells
    after = before.copy()
    after[types == 1] += [2.0, 0, 0]  # farther from both others
    assert type_distance_inflation(before, after, batch, types) == pytest.approx(2 / 3)


def test_the_farthest_batch_is_the_one_that_counts(cells):
    """Type 1 lies farther from type 0 at one batch; to follow it is no inflation, to go beyond it is."""
    before, batch, types = cells
    before = before + np.where((batch == 1) & (types == 1), 1.0, 0.0)[:, None] * [1, 0, 0]
    moved = (batch == 0) & (types == 1)
    within, beyond = (before + np.where(moved, by, 0.0)[:, None] * [1, 0, 0] for by in (0.9, 4.0))
    assert type_distance_inflation(before, within, batch, types) == 0
    assert type_distance_inflation(before, beyond, batch, types) == pytest.approx(2 / 3)


def test_batches_that_stay_apart_inflate_where_they_hold_types_of_their_own(cells):
    """The batch effect between the dominant batches of two types is in the distance of their means."""
    before, batch, types = cells
    before = before + np.where(batch == 1, 10.0, 0.0)[:, None]
    few = (types == 0) & (batch == 1) | (types == 1) & (batch == 0)
    kept = ~few | (np.arange(len(types)) % 2 == 0)
    before, batch, types = before[kept], batch[kept], types[kept]
    assert type_distance_inflation(before, before, batch, types) > 0


def test_types_with_few_cells_are_not_compared(cells):
    before, batch, types = cells
    after = before.copy()
    after[types == 2] += 9.0
    kept = (types != 2) | (np.arange(len(types)) % 10 == 0)
    arguments = before[kept], after[kept], batch[kept], types[kept]
    assert type_distance_inflation(*arguments) == 0
    assert type_distance_inflation(*arguments, min_cells=2) == pytest.approx(2 / 3)


def test_what_can_not_be_compared_is_said(cells):
    before, batch, types = cells
    with pytest.raises(UndefinedMetricError, match="no batch holds two types with 50 cells each"):
        type_distance_inflation(before, before, batch, types, min_cells=50)
    with pytest.raises(UndefinedMetricError, match="there is no unit of length"):
        type_distance_inflation(before, np.eye(3)[types], batch, types)
    with pytest.raises(ValueError, match="before has 120 cells and the one after 119"):
        type_distance_inflation(before, before[1:], batch, types)
