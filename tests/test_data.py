import warnings

import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import sparse

from cells import make_adata
from fedscgen._data import DataKeys, check_data, summarize_expression
from fedscgen._read_cells import read_cells


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


@pytest.mark.parametrize("form", ["h5mu", "zarr"])
def test_other_forms_of_the_same_cells_are_read(tmp_path, form):
    adata, path = make_adata(), tmp_path / f"cells.{form}"
    if form == "zarr":
        pytest.importorskip("zarr")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the format that comes to be the default
            adata.write_zarr(path)
    else:
        mdata = MuData({"rna": adata})
        mdata.obs["batch"] = adata.obs["batch"]
        del mdata.mod["rna"].obs["batch"]
        mdata.write(path)
    read = read_cells(path)
    assert (read.X != adata.X).nnz == 0
    assert list(read.obs["batch"]) == list(make_adata().obs["batch"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x * 0, "holds only zeros: name the layer that holds log-normalised expression"),
        (lambda x: x.astype(np.float64) * 1e300, "which no expression is: remove or repair such values"),
    ],
)
def test_expression_that_tells_nothing_is_refused(spoil, message):
    adata = make_adata()
    adata.X = spoil(adata.X)
    with pytest.raises(ValueError, match=message):
        check_data(adata, DataKeys())


def test_one_column_for_two_keys_is_refused():
    with pytest.raises(ValueError, match=r"batch_key and labels_key both name obs\['cell_type'\]"):
        check_data(make_adata(), DataKeys(batch_key="cell_type"))


def test_labels_that_are_numbers_and_text_are_refused():
    adata = make_adata()
    adata.obs["cell_type"] = pd.Series([1, "1"] * 75, index=adata.obs_names, dtype=object)
    with pytest.raises(ValueError, match=r"obs\['cell_type'\] holds '1' both as text and as a number"):
        check_data(adata, DataKeys())


@pytest.mark.parametrize("kind", [complex, object])
def test_expression_that_is_no_real_number_is_refused(kind):
    adata = make_adata()
    adata.X = adata.X.toarray().astype(kind)
    with pytest.raises(TypeError, match=rf"north: X holds {np.dtype(kind)} instead of real numbers: convert it with"):
        check_data(adata, DataKeys(), who="north: ")
