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
