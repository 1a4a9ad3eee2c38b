"""Sites' matrices put together by rows: those of the whole, and NaN where a site dropped out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fedscgen.federation import _joined
from fedscgen.federation._joined import merge_rows


@given(seed=st.integers(0, 2**32 - 1), n_sites=st.integers(1, 5), missing=st.booleans(), dense=st.booleans())
def test_rows_are_where_they_were(seed, n_sites, missing, dense):
    rng = np.random.default_rng(seed)
    whole = sparse.random(23, 7, 0.4, "csr", dtype=np.float32, random_state=rng)
    site = rng.integers(n_sites, size=23)
    site[0], expected = n_sites, whole.toarray()
    kept = [s for s in range(n_sites + 1) if not missing or s < n_sites]
    expected[~np.isin(site, kept)] = np.nan
    rows = [np.flatnonzero(site == s) for s in kept]
    parts = [(r, whole[r].toarray() if dense else whole[r]) for r in rows]
    merged = merge_rows(parts, 23)
    assert not parts
    assert sparse.issparse(merged) is not dense
    np.testing.assert_array_equal(merged if dense else merged.toarray(), expected)
    if not dense:
        merged.check_format()
        assert merged.has_canonical_format


@pytest.mark.parametrize("at_a_time", [1, 3, 100])
def test_rows_are_written_some_at_a_time(monkeypatch, at_a_time):
    monkeypatch.setattr(_joined, "_ROWS_AT_A_TIME", at_a_time)
    whole = sparse.random(20, 6, 0.5, "csr", dtype=np.float32, random_state=1)
    even, odd = np.arange(0, 20, 2), np.arange(1, 20, 2)
    merged = merge_rows([(even, whole[even]), (odd, whole[odd])], 20)
    np.testing.assert_array_equal(merged.toarray(), whole.toarray())
