"""Mini-batches that are made on a device: those of scvi-tools' loader, whatever the matrix."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scvi.dataloaders import AnnDataLoader

from cells import SMALL, make_adata
from fedscgen.model import FedSCGEN, _training
from fedscgen.model._device_batches import DeviceBatches, fits

CPU = torch.device("cpu")
KINDS = {
    "csr": sparse.csr_matrix,
    "csr array": sparse.csr_array,
    "long indices": lambda matrix: _with_long_indices(sparse.csr_matrix(matrix)),
    "double": lambda matrix: sparse.csr_matrix(matrix, dtype=np.float64),
    "dense": lambda matrix: matrix.toarray(),
    "dense in columns": lambda matrix: np.asfortranarray(matrix.toarray(), dtype=np.float64),
}


def _with_long_indices(matrix):
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    return matrix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shuffle", "drop_last", "size"), [(True, False, 7), (False, True, 8), (True, True, 200)])
def test_they_are_those_of_scvi_tools(adata, kind, shuffle, drop_last, size):
    rows = np.random.default_rng(1).permutation(adata.n_obs)[:101]
    FedSCGEN.setup_anndata(adata)
    manager = FedSCGEN(adata, **SMALL).adata_manager
    theirs = AnnDataLoader(manager, rows, size, shuffle=shuffle, drop_last=drop_last, data_and_attributes=["X"])
    ours = DeviceBatches(KINDS[kind](adata.X), rows, size, shuffle=shuffle, drop_last=drop_last, device=CPU)
    assert len(ours) == len(theirs)
    for _ in range(2):
        torch.manual_seed(5)
        expected = [batch["X"] for batch in theirs]
        torch.manual_seed(5)
        given = [batch["X"] for batch in ours]
        assert len(given) == len(expected)
        for one, other in zip(given, expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other.to(torch.float32), rtol=0, atol=0)


def test_cells_without_any_count_are_zeros():
    batches = DeviceBatches(sparse.csr_matrix((3, 4)), np.arange(3), 2, shuffle=False, drop_last=False, device=CPU)
    assert [batch["X"].tolist() for batch in batches] == [[[0.0] * 4] * 2, [[0.0] * 4]]


def test_training_from_them_is_the_same(monkeypatch):
    weights, taken = [], []
    monkeypatch.setattr(_training, "DeviceBatches", lambda *a, **k: taken.append(1) or DeviceBatches(*a, **k))
    for on_device in (False, True):
        monkeypatch.setattr(_training, "fits", lambda *_, chosen=on_device: chosen)
        torch.manual_seed(0)
        adata = make_adata()
        FedSCGEN.setup_anndata(adata)
        model = FedSCGEN(adata, **SMALL)
        model.train_local(3)
        weights.append(model.get_weights())
    assert len(taken) == 2  # to train and to validate
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


@pytest.mark.filterwarnings("ignore:Training will be faster when sparse matrix:UserWarning")
def test_cells_in_columns_are_put_in_rows_once(monkeypatch):
    weights, given = [], []
    monkeypatch.setattr(_training, "DeviceBatches", lambda *a, **k: given.append(a[0]) or DeviceBatches(*a, **k))
    for kind in (sparse.csr_matrix, sparse.csc_matrix):
        torch.manual_seed(0)
        adata = make_adata()
        adata.X = kind(adata.X)
        FedSCGEN.setup_anndata(adata)
        model = FedSCGEN(adata, **SMALL)
        model.train_local(3)
        assert isinstance(adata.X, kind)
        weights.append(model.get_weights())
    assert [matrix.format for matrix in given] == ["csr", "csr"]  # of the second, to train and to validate
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_a_gpu_takes_what_fits_and_a_cpu_nothing(adata, monkeypatch):
    gpu = torch.device("cuda", 0)
    assert not fits(adata.X, 100, CPU)
    for free, expected in ((10**9, True), (1000, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2 * free))
        assert fits(adata.X, 100, gpu) is expected
        assert fits(adata.X.toarray(), 100, gpu) is expected
    assert not fits(adata.X.tocsc(), 100, gpu)
