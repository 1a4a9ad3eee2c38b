import numpy as np
import pytest
from scipy import sparse

from fedscgen._data import summarize_expression


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize(
    ("values", "looks_raw"),
    [
        ([0, 1, 3], True),
        ([0, 1, 1], False),  # presence and absence
        ([0.0, 0.5, 49.0], False),
        ([0.0, 0.5, 51.0], True),  # larger than a logarithm can be
        ([-1, 0, 3], False),
    ],
)
def test_raw_counts_are_told_from_logarithms(form, values, looks_raw):
    assert summarize_expression(form(np.asarray([values]))).looks_raw == looks_raw


def test_a_summary_is_of_all_cells():
    matrix = np.zeros((10_000, 2), dtype=np.float32)
    matrix[5_000, 1], matrix[9_999, 0] = -0.5, 7
    assert summarize_expression(matrix) == (-0.5, 7, False, True)
    matrix[9_998, 0] = np.inf
    assert not summarize_expression(sparse.csr_matrix(matrix)).finite
