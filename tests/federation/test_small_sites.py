"""Sites of too few cells to train: the others' run goes on, and says so."""

import numpy as np
import pytest

from cells import make_adata
from fedscgen.federation import SiteError
from quick import QUICK, simulate

pytestmark = pytest.mark.filterwarnings(
    "ignore:site 'tiny'.* too few cells .* to tell their batch's effect:UserWarning"
)
FEW = "moved by fewer than 5 cells of its batch: not to be relied on; took no part in training: too few cells"


@pytest.fixture
def sites(adata):
    """Three sites, to which tests add a small one."""
    del adata.obs["age"]
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}
    for part in parts.values():
        del part.obs["batch"]
    return parts


def make_tiny(n_cells):
    tiny = make_adata(n_cells=20, seed=5)[:n_cells].copy()
    tiny.obs_names = [f"tiny{i}" for i in range(n_cells)]
    del tiny.obs["batch"]
    del tiny.obs["age"]
    return tiny


@pytest.mark.parametrize("secure", ["plain", "masked"])
@pytest.mark.parametrize("n_cells", [1, 3])
def test_a_site_too_small_to_train_is_corrected_by_the_others_model(sites, n_cells, secure):
    with pytest.warns(UserWarning, match=f"site 'tiny' has {n_cells} cells?, and training needs 4: the others train"):
        result = simulate({**sites, "tiny": make_tiny(n_cells)}, secure=secure, batch_key=None, **QUICK)
    expected = simulate(sites, secure=secure, batch_key=None, **QUICK)
    for name, array in expected.model.get_weights().items():
        np.testing.assert_array_equal(result.model.get_weights()[name], array)
    assert result.corrected.n_obs == 150 + n_cells
    assert result.model.adata.n_obs == 150 + n_cells
    assert np.isfinite(result.corrected.obsm["X_fedscgen"]).all()
    table = result.types[result.types["site"] == "tiny"]
    assert table["n_cells"].sum() == table["n_moved"].sum() == n_cells
    assert (table["why"] == FEW).all()
    assert (result.types.loc[result.types["site"] != "tiny", "why"] == "").all()
    assert set(result.history["site"]) == set(sites)
    sent = result.ledger.loc[result.ledger["sender"] == "tiny", "kind"]
    assert set(sent) == {"settings", "final weights and references"}


def test_one_column_of_sites_may_name_one_that_is_too_small(adata):
    adata.obs["batch"] = ["tiny", *adata.obs["batch"].astype(str)[1:]]
    with (
        pytest.warns(UserWarning, match="site 'tiny' has 1 cell, and training needs 4"),
        pytest.warns(UserWarning, match=r"site 'tiny': too few cells \(1; a batch needs 5\) to tell their"),
    ):
        result = simulate(adata, **QUICK)
    assert list(result.corrected.obs_names) == list(adata.obs_names)
    assert result.corrected.obs["fedscgen_moved"].all()
    assert np.isfinite(result.corrected.obsm["X_fedscgen"]).all()
    assert FEW in set(result.types["why"])


def test_a_small_site_that_cannot_be_corrected_costs_the_others_nothing(sites):
    tiny = make_tiny(2)[:, 10:].copy()
    left_out = "the cells of site 'tiny' are left out, of which training knows nothing: .*10 of the model's 30 genes"
    with (
        pytest.warns(UserWarning, match="site 'tiny' has 2 cells, and training needs 4"),
        pytest.warns(UserWarning, match=left_out),
    ):
        result = simulate({**sites, "tiny": tiny}, batch_key=None, **QUICK)
    assert result.corrected.shape == result.model.adata.shape == (150, 30)
    (row,) = result.types[result.types["site"] == "tiny"].to_dict("records")
    assert (row["n_cells"], row["n_moved"]) == (2, 0)
    assert row["why"].startswith("left out: site 'tiny' failed at 'settings': 10 of the model's 30 genes are missing")


def test_one_site_that_can_train_has_none_to_federate_with(sites):
    with (
        pytest.warns(UserWarning, match="site 'tiny' has 3 cells"),
        pytest.raises(ValueError, match="there is one site alone, 'site0', so nothing to federate"),
    ):
        simulate({"site0": sites["site0"], "tiny": make_tiny(3)}, batch_key=None, **QUICK)


def test_fewer_sites_that_can_train_than_are_asked_for_end_the_run_before_training(sites):
    trained = []
    with (
        pytest.warns(UserWarning, match="site 'tiny' has 3 cells"),
        pytest.raises(SiteError, match=r"3 sites are left .*min_sites=4"),
    ):
        simulate({**sites, "tiny": make_tiny(3)}, min_sites=4, on_round=trained.append, batch_key=None, **QUICK)
    assert not trained
