import numpy as np
import pytest
from scipy import sparse

from cells import make_adata
from fedscgen._data import read_cells, summarize_expression


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


def test_cells_are_read_whole_or_left_on_disk(tmp_path):
    adata = make_adata()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert (read_cells(tmp_path / "cells.h5ad").X != adata.X).nnz == 0
    on_disk = read_cells(tmp_path / "cells.h5ad", on_disk=True)
    assert on_disk.isbacked
    on_disk.file.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_no_h5ad_is_named_in_one_line(tmp_path, on_disk):
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad does not exist"):
        read_cells(tmp_path / "none.h5ad", on_disk=on_disk)
    (tmp_path / "text.h5ad").write_text("cell,gene")
    with pytest.raises(ValueError, match=r"text\.h5ad can't be read as \.h5ad: ") as error:
        read_cells(tmp_path / "text.h5ad", on_disk=on_disk)
    assert "\n" not in str(error.value)
