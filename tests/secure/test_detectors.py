"""The detectors that the wire tests rely on: they find what is planted, and only that."""

import numpy as np
import pytest

PRECISION = 29
VALUES = {
    "weights": np.random.default_rng(1).standard_normal(20).astype(np.float32),
    "means": np.random.default_rng(2).standard_normal(20),
    "counts": np.random.default_rng(3).integers(10_000, 999_999, 20),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("form", ["float32", "float64", "fixed point", "int64", "decimal"])
def test_a_planted_number_is_found_in_the_form_it_has(name, form, forms, in_the_clear):
    noise = np.random.default_rng(4).bytes(100_001)
    assert in_the_clear(noise, VALUES.values(), PRECISION) == set()
    patterns = forms(VALUES[name], PRECISION)[form]
    assert bool(patterns) == (name == "counts" or form != "int64")
    for pattern in patterns:
        assert form in in_the_clear(noise[:50_001] + pattern + noise[50_001:], VALUES.values(), PRECISION)


def test_digits_inside_of_a_key_are_no_number(in_the_clear):
    assert in_the_clear(b'["c0ffee31415a", 7]', [np.array(31415.0)], PRECISION) == set()
    assert in_the_clear(b'["c0ffee", 31415]', [np.array(31415.0)], PRECISION) == {"decimal"}


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8"])
def test_plain_numbers_are_not_taken_for_noise(dtype, uniform):
    values = np.random.default_rng(5).standard_normal(2000)
    assert not uniform((values * (2.0**PRECISION if dtype == "<i8" else 1)).astype(dtype).tobytes())
    assert uniform(np.random.default_rng(6).bytes(16_000))
    with pytest.raises(AssertionError, match="too few"):
        uniform(bytes(100))
