"""A site that fails when all have trained: nothing that was computed is lost, and it is said who isn't corrected."""

import tempfile

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from typer.testing import CliRunner

from cells import make_adata
from fedscgen.cli import app
from fedscgen.federation import SiteError, _client
from fedscgen.model import FedSCGEN
from quick import QUICK, simulate

TOLD = "the cells of site 'site1' are not corrected: site 'site1' failed at 'final weights and references'.*: no memory"


class Unlucky:
    """What can't be copied when a result is made of the cells."""

    def __deepcopy__(self, memo):
        raise MemoryError("no memory")


@pytest.fixture
def sites(adata):
    """Three sites, of which the second can't make its result."""
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}
    parts["site1"].uns["unlucky"] = Unlucky()
    return parts


@pytest.fixture
def fails_at_site1(monkeypatch):
    """The same where the sites are parts of one AnnData, which are made by the simulation itself."""
    correct, batches = _client.correct_cells, make_adata().obs["batch"]

    def fail(model, cells, *others):
        if batches[cells.adata.obs_names[0]] == "site1":
            raise MemoryError("no memory")
        return correct(model, cells, *others)

    monkeypatch.setattr(_client, "correct_cells", fail)


@pytest.mark.parametrize("secure", ["plain", "masked"])
def test_the_others_and_all_that_was_trained_are_there(sites, adata, secure):
    with pytest.warns(UserWarning, match=TOLD):
        result = simulate(sites, secure=secure, **QUICK)
    expected = simulate(adata, secure=secure, **QUICK)
    for name, array in expected.model.get_weights().items():
        np.testing.assert_allclose(result.model.get_weights()[name], array, atol=1e-5)
    assert set(result.corrected.obs["batch"]) == {"site0", "site2"}
    assert set(result.history["site"]) == set(result.ledger["sender"]) - {"server"} == set(sites)
    (row,) = result.types[result.types["site"] == "site1"].to_dict("records")
    assert (row["n_cells"], row["n_moved"]) == (sites["site1"].n_obs, 0)
    assert row["why"].startswith("not corrected: site 'site1' failed at")
    del sites["site1"].uns["unlucky"]
    assert result.model.correct(sites["site1"]).obs["fedscgen_moved"].all()


def test_of_one_adata_the_cells_stay_without_a_place(adata, fails_at_site1):
    with pytest.warns(UserWarning, match=TOLD):
        result = simulate(adata, **QUICK)
    lost = (adata.obs["batch"] == "site1").to_numpy()
    assert list(result.corrected.obs_names) == list(adata.obs_names)
    np.testing.assert_array_equal(np.isnan(result.corrected.obsm["X_fedscgen"]).all(axis=1), lost)
    np.testing.assert_array_equal(result.corrected.obs["fedscgen_moved"], ~lost)


def test_where_no_site_can_correct_its_cells_the_error_says_where_the_model_is(sites, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for cells in sites.values():
        cells.uns["unlucky"] = Unlucky()
    with pytest.warns(UserWarning, match="are not corrected"), pytest.raises(SiteError, match="no site could") as error:
        simulate(sites, **QUICK)
    for cells in sites.values():
        del cells.uns["unlucky"]
    (folder,) = tmp_path.glob("fedscgen-*/model")
    assert str(error.value).endswith(f"What was trained is in {folder}")
    expected = simulate(sites, **QUICK).model.get_weights()
    for name, array in FedSCGEN.load(folder, sites["site0"]).get_weights().items():
        np.testing.assert_allclose(array, expected[name], atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_the_command_line_writes_all_and_says_so(tmp_path, fails_at_site1):
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    command = ["simulate", tmp_path / "cells.h5ad", "-o", tmp_path / "out", "--settings", "components"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 1, done.output
    assert "not corrected: site 'site1' failed at" in done.stdout
    assert f"All else is in {tmp_path / 'out'}" in done.stderr
    assert FedSCGEN.load(tmp_path / "out" / "model", read_h5ad(tmp_path / "cells.h5ad")).references is not None
    assert len(pd.read_csv(tmp_path / "out" / "ledger.csv"))
    assert read_h5ad(tmp_path / "out" / "corrected.h5ad").obs["fedscgen_moved"].sum() > 0
