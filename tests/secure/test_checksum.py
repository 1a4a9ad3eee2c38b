"""The checksum by which sites know the sum from whatever else is published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen.secure._checksum import Checksum

KEY, SITES = b"k" * 32, ("north", "south", "west")
PRIME = 2**31 - 1
WORDS = st.lists(st.integers(-(2**61), 2**61), min_size=3, max_size=3)


def as_words(values):
    return np.array([value % 2**64 for value in values], dtype=np.uint64)


@given(st.lists(WORDS, min_size=3, max_size=3))
def test_checksums_add_up_as_terms_do(terms):
    checksum = Checksum(KEY, ["run", 1])
    checks = np.sum([checksum.of_term(as_words(term), site) for term, site in zip(terms, SITES, strict=True)], axis=0)
    total = as_words([sum(values) for values in zip(*terms, strict=True)])
    assert checksum.fits(total, checks, SITES)
    assert not checksum.fits(total, checks, SITES[:2])
    assert not Checksum(KEY, ["run", 2]).fits(total, checks, SITES)
    assert not Checksum(b"x" * 32, ["run", 1]).fits(total, checks, SITES)


@given(WORDS, st.integers(0, 2), st.integers(1, 2**62).filter(lambda n: n % PRIME))
def test_no_change_of_a_word_passes(term, place, change):
    checksum = Checksum(KEY, "sum")
    checks = checksum.of_term(as_words(term), "north")
    changed = list(term)
    changed[place] += change
    assert checksum.fits(as_words(term), checks, ["north"])
    assert not checksum.fits(as_words(changed), checks, ["north"])


def test_a_checksum_tells_nothing_of_its_term():
    """Behind the pad, the same term has another checksum in every sum, and they spread over the field."""
    words = as_words([1, 2, 3])
    checks = np.array([Checksum(KEY, number).of_term(words, "north") for number in range(400)]).ravel()
    assert len(np.unique(checks)) == checks.size
    np.testing.assert_allclose(np.quantile(checks / PRIME, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.06)


@pytest.mark.parametrize("n_words", [1, 511, 512, 513, 64 * 512 + 1, 70_000])
def test_products_are_exact_whatever_the_words(n_words):
    """They are computed in floating point, which holds the largest ones just so."""
    words = np.random.default_rng(0).integers(0, 2**64, n_words, dtype=np.uint64)
    words[:512] = as_words([2**63 - 1])
    words[-1] = as_words([-(2**63)])[0]
    checksum = Checksum(KEY, "sum")
    of_columns, of_rows = (checksum._draw(name, n).astype(object) for name, n in [(b"columns", 512), (b"rows", 200)])
    places = np.arange(n_words)
    factors = of_columns[places % 512] * of_rows[places // 512]
    expected = (words.view(np.int64).astype(object)[:, None] * factors).sum(axis=0) % PRIME
    assert checksum._multiply(words).tolist() == expected.tolist()


def test_the_largest_products_are_exact():
    """Every secret number the largest one, and every word, too."""
    checksum = Checksum(KEY, "sum")
    checksum._draw = lambda purpose, n: np.full((n, 3), PRIME - 1, dtype=np.uint64)
    words = as_words([2**63 - 1] * 1024)
    assert checksum._multiply(words).tolist() == [1024 * (2**63 - 1) % PRIME] * 3
