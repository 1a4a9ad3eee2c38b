from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedscgen.secure import AggregationError, error_bound
from fedscgen.secure._fixed_point import check_precision, decode, encode, precision_for

precisions = st.integers(16, 32)


@settings(deadline=None)
@given(precision=precisions, values=st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_round_trip_is_within_half_a_unit(precision, values):
    array = np.array(values, dtype=np.float64)
    opened = decode(encode(array, precision, "x", max_abs=1e6), precision)
    assert opened.shape == array.shape
    assert (np.abs(opened - array) <= error_bound(precision, n_sites=1)).all()


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=12),
    weight=st.floats(0, 100),
    max_abs=st.sampled_from([1e7, 2.0**30, 2.0**40]),
)
def test_sum_of_words_is_within_the_bound_of_the_exact_sum(values, weight, max_abs):
    precision = precision_for(max_abs, len(values))
    words = np.zeros(1, dtype=np.uint64)
    for value in values:
        words += encode(np.array([value]), precision, "x", max_abs=max_abs, weight=weight)
    exact = sum(Fraction(weight * value) for value in values)
    opened = Fraction(float(decode(words, precision)[0]))
    bound = Fraction(error_bound(precision, len(values))) + abs(exact) * Fraction(2) ** -52
    assert abs(opened - exact) <= bound


@settings(deadline=None)
@given(n_sites=st.integers(1, 200), max_abs=st.floats(1e-3, 2.0**38))
def test_the_largest_values_never_wrap_and_one_more_bit_would(n_sites, max_abs):
    precision = precision_for(max_abs, n_sites)
    word = int(encode(np.array(max_abs), precision, "x", max_abs=max_abs))
    assert n_sites * word < 2**63
    if precision < 32:
        with pytest.raises(ValueError, match="declare a max_abs below"):
            check_precision(precision + 1, max_abs, n_sites)


def test_negative_sum_survives_the_ring():
    words = encode(np.array([-3.5, 2.0]), 20, "x", max_abs=10) + encode(np.array([1.25, -2.0]), 20, "x", max_abs=10)
    np.testing.assert_array_equal(decode(words, 20), [-2.25, 0.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_weight_is_applied_in_float64(dtype):
    array = np.array([[1, 2], [3, 16_777_213]], dtype=dtype)
    words = encode(array, 16, "x", max_abs=2.0**40, weight=1001.0)
    np.testing.assert_array_equal(decode(words, 16), array.astype(np.float64) * 1001)


def test_words_are_written_in_place():
    words = np.zeros(6, dtype=np.uint64)
    encode(np.ones((2, 2)).T, 16, "x", max_abs=2, out=words[1:5].reshape(2, 2))
    np.testing.assert_array_equal(words, [0, 2**16, 2**16, 2**16, 2**16, 0])


def test_empty_arrays_and_scalars_are_encoded():
    assert encode(np.empty((0, 3)), 16, "x", max_abs=1).shape == (0, 3)
    assert decode(encode(np.array(0.5), 16, "x", max_abs=1), 16) == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_by_name(value):
    array = np.zeros((2, 3), dtype=np.float32)
    array[1, 2] = value
    with pytest.raises(AggregationError, match=rf"encoder\.weight\[1, 2\] is {value}.*only finite values"):
        encode(array, 20, "encoder.weight", max_abs=1e3, weight=0.0)


@pytest.mark.parametrize("value", [200.0, -200.0, 1e38])
def test_overflow_is_refused_by_name_with_the_remedy(value):
    array = np.array([0.0, value])
    with pytest.raises(AggregationError, match=r"bias\[1\] is .*weight 10 exceeds max_abs=1000: declare a larger"):
        encode(array, 20, "bias", max_abs=1e3, weight=10.0)


def test_non_finite_weight_is_refused():
    with pytest.raises(AggregationError, match="weight nan"):
        encode(np.zeros(2), 20, "bias", max_abs=1e3, weight=np.nan)


@pytest.mark.parametrize("max_abs", [0, -1.0, np.nan, np.inf])
def test_range_must_be_positive_and_finite(max_abs):
    with pytest.raises(ValueError, match="declare a positive, finite bound"):
        precision_for(max_abs, 2)


@pytest.mark.parametrize("precision", [15, 33])
def test_precision_outside_16_to_32_bits_is_refused(precision):
    with pytest.raises(ValueError, match=f"precision={precision} bits"):
        check_precision(precision, 1.0, 2)


def test_range_too_wide_for_16_bits_is_refused():
    with pytest.raises(ValueError, match=r"max_abs=1\.75922e\+13 with 8 sites"):
        precision_for(2.0**44, 8)
    with pytest.raises(ValueError, match="n_sites=0"):
        precision_for(1.0, 0)
