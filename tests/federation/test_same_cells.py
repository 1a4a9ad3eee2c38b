"""One cell at two sites: told by its expression, whatever it is called and wherever its genes stand."""

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat
from scipy import sparse
from typer.testing import CliRunner

from cells import make_adata
from fedscgen._data import DataKeys
from fedscgen.cli import app
from fedscgen.federation._same_cells import refuse_same_cells
from quick import QUICK, simulate


def check(**sites):
    refuse_same_cells(sites, DataKeys())


def rename(adata, prefix="other"):
    other = adata.copy()
    other.obs_names = [f"{prefix}{i}" for i in range(adata.n_obs)]
    return other


def test_one_object_as_two_sites_is_refused_before_training(adata):
    trained = []
    told = (
        "sites 'north' and 'south' hold the same 150 cells, .*'cell0' of 'north' is 'cell0' of 'south'.*100% of those"
    )
    with pytest.raises(ValueError, match=told):
        simulate({"north": adata, "south": adata}, on_round=trained.append, **QUICK)
    assert not trained


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "float64", "repeated"])
def test_a_copy_in_another_order_and_form_is_found(adata, kind):
    other = rename(adata[::-1, ::-1])
    forms = {
        "csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda x: x.toarray(),
        "float64": lambda x: x.toarray().astype(np.float64), "repeated": repeat,
    }  # fmt: skip
    other.X = forms[kind](other.X)
    before = other.X.copy()
    with pytest.raises(
        ValueError, match=r"'cell0' of 'a' is 'other149' of 'b'\), which are 100% .*: give each site its"
    ):
        check(a=adata, b=other)
    assert (abs(other.X - before)).sum() == 0


def repeat(matrix):
    """The same matrix with its first entry in two halves."""
    coo = matrix.tocoo()
    data = np.concatenate([[coo.data[0] / 2], coo.data])
    data[1] /= 2
    columns = np.concatenate([coo.col[:1], coo.col])
    return sparse.csr_matrix((data, columns, matrix.indptr + (np.arange(len(matrix.indptr)) > 0)), shape=matrix.shape)


def test_sites_that_hold_other_genes_are_compared_by_those_in_common(adata):
    with pytest.raises(ValueError, match=r"the same 1[34]\d cells"):
        check(a=adata[:, 5:].copy(), b=rename(adata[:, :25]), c=make_adata(seed=9))


def test_overlapping_cells_are_refused_with_their_share_of_the_smaller_site(adata):
    with pytest.raises(ValueError, match=r"hold the same 20 cells.*'cell0' of 'a' is 'other0'.*25% of those of 'b'"):
        check(a=adata, b=rename(concat([adata[:20], make_adata(60, seed=5)], index_unique="-")))


def test_a_few_cells_in_common_are_a_warning():
    many = make_adata(400)
    other = rename(concat([make_adata(399, seed=5), many[:1]], index_unique="-"))
    with pytest.warns(UserWarning, match=r"hold the same 1 cell, .*'cell0' of 'a' is 'other399' of 'b'"):
        check(a=many, b=other)


def test_sound_sites_and_chance_are_not_spoken_of(adata):
    rng = np.random.default_rng(0)
    shallow = [AnnData(sparse.csr_matrix(rng.random((200, 30)) < 0.1, dtype=np.float32)) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check(**{site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")})
        check(a=shallow[0], b=shallow[1])
        check(a=adata)


def test_expression_that_differs_in_its_last_bit_is_another_cell(adata):
    other = adata.copy()
    other.X.data = np.nextafter(other.X.data, np.float32(np.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check(a=adata, b=other)


def test_copies_in_one_file_or_two_end_with_one_line(adata, tmp_path):
    part = adata[:80].copy()
    twice = pd.concat([part.obs.assign(batch="a"), part.obs.assign(batch="b")])
    twice.index = [f"cell{i}" for i in range(160)]
    whole = AnnData(sparse.vstack([part.X, part.X], "csr"), obs=twice, var=part.var)
    whole.write_h5ad(tmp_path / "whole.h5ad")
    for name in ("a", "b"):
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    for files in (["whole.h5ad"], ["a.h5ad", "b.h5ad"]):
        paths = [str(tmp_path / name) for name in files]
        done = CliRunner().invoke(app, ["simulate", *paths, "-o", str(tmp_path / "out")])
        assert done.exit_code == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert "Error: sites 'a' and 'b' hold the same 80 cells, by their expression" in line
        assert not (tmp_path / "out").exists()
