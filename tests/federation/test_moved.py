"""Nothing is called corrected that wasn't: what moved, what stayed and why, and whose spelling is to blame."""

import warnings

import numpy as np
import pandas as pd
import pytest

from cells import SMALL, leave_out_pandas, make_adata
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation import FederationSettings, InProcessTransport, Server
from fedscgen.model import FedSCGEN
from fedscgen.secure import make_aggregator
from quick import QUICK, make_client, simulate


def rename(adata, name, sites=("site2",), types=("type0", "type1", "type2", "type3")):
    """The cells with other names of these types at these sites."""
    renamed = adata.copy()
    labels = renamed.obs["cell_type"].astype(object)
    chosen = renamed.obs["batch"].isin(sites) & labels.isin(types)
    labels[chosen] = labels[chosen].map(name)
    renamed.obs["cell_type"] = labels.astype("category")
    return renamed


@pytest.mark.parametrize("reference", ["landmarks", "mean"])
@pytest.mark.parametrize("name", [str.upper, "{}.0".format, "{}s".format])
def test_a_site_that_spells_all_types_its_own_way_is_refused_before_training(adata, name, reference):
    trained = []
    spelled = name("type0")
    with pytest.raises(NoSharedLabelError, match=f"site 'site2': .*'{spelled}', is it 'type0'\\?.*spell types alike"):
        simulate(rename(adata, name), reference=reference, on_round=lambda *_: trained.append(1), **QUICK)
    assert not trained


@pytest.mark.parametrize("salt", [None, "s" * 32])
@pytest.mark.parametrize("name", ["{} ".format, "\N{NO-BREAK SPACE}{}".format])
def test_spaces_around_names_keep_no_site_apart(adata, name, salt):
    spaced = rename(adata, name)
    clients = {site: spaced[spaced.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}
    with pytest.warns(UserWarning, match=r"site 'site2': obs\['cell_type'\] has 4 names with spaces .*read as 'type0'"):
        corrected, types = run_clients(clients, salt)
    expected, _ = run_clients({site: adata[adata.obs["batch"] == site].copy() for site in clients}, salt)
    for site in clients:
        np.testing.assert_array_equal(corrected[site].obsm["X_fedscgen"], expected[site].obsm["X_fedscgen"])
    assert types["cell_type"].tolist() == ["type0", "type1", "type2", "type3"]
    assert (types["why"] == "").all()
    assert list(corrected["site2"].obs["cell_type"]) == list(clients["site2"].obs["cell_type"])


def run_clients(cells, salt):
    """What each site has in the end, and the table of site2."""
    aggregator = make_aggregator("plain", len(cells))
    clients = [
        make_client(site, part, aggregator.contributor(site), label_salt=salt, seed=i)
        for i, (site, part) in enumerate(cells.items())
    ]
    settings = FederationSettings(n_rounds=1, n_epochs=1, model=SMALL, seed=0)
    with aggregator:
        Server(InProcessTransport(clients), aggregator, settings).run()
    corrected = {client.site: client.corrected for client in clients}
    return corrected, corrected["site2"].uns["fedscgen_types"]


def test_a_column_that_spells_one_type_with_and_without_spaces_holds_one(adata):
    mixed = adata.copy()
    labels = mixed.obs["cell_type"].astype(object)
    labels.iloc[::2] = " " + labels.iloc[::2] + " "
    mixed.obs["cell_type"] = labels
    with pytest.warns(UserWarning, match="4 names with spaces around"):
        result = simulate(mixed, unlabeled_category=" type3", **QUICK)
    expected = simulate(adata, unlabeled_category="type3", **QUICK)
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], expected.corrected.obsm["X_fedscgen"])
    assert result.references.labels == ("type0", "type1", "type2")


def test_a_site_may_stay_where_it_is_if_it_is_named(adata):
    with (
        pytest.warns(UserWarning, match="site 'site2': no other site shares any of its types"),
        pytest.warns(UserWarning, match=r"site 'site2': 55 cells stay where they are \(16 of 'TYPE0', is it 'type0'"),
    ):
        result = simulate(rename(adata, str.upper), unaligned_sites=("site2",), label_noise=0.0, **QUICK)
    stays = (adata.obs["batch"] == "site2").to_numpy()
    np.testing.assert_array_equal(result.corrected.obs["fedscgen_moved"], ~stays)
    table = result.types[result.types["site"] == "site2"]
    assert list(table["cell_type"]) == ["TYPE0", "TYPE1", "TYPE2", "TYPE3"]
    assert list(table["like"]) == ["type0", "type1", "type2", "type3"]
    assert (table["n_moved"] == 0).all()
    assert table["why"].str.startswith("no reference: no two sites").all()
    assert table["n_cells"].sum() == stays.sum()
    pd.testing.assert_frame_equal(result.corrected.uns["fedscgen_types"], result.types)


def test_the_table_counts_every_cell_and_the_column_says_which_moved(adata):
    few = rename(adata, lambda _: "rare", types=("type0",))
    few = few[(few.obs["cell_type"] != "rare") | (few.obs["cell_type"] == "rare").cumsum().le(3)].copy()
    with pytest.warns(UserWarning, match="site 'site2': 3 cells stay where they are \\(3 of 'rare'\\)"):
        result = simulate(few, reference="mean", **QUICK)
    latent = result.model.get_latent_representation()
    moved = (np.abs(result.corrected.obsm["X_fedscgen"] - latent) > 1e-5).any(axis=1)
    np.testing.assert_array_equal(result.corrected.obs["fedscgen_moved"], moved)
    counts = few.obs.groupby(["batch", "cell_type"], observed=True).size()
    assert result.types.set_index(["site", "cell_type"])["n_cells"].to_dict() == counts.to_dict()
    (rare,) = result.types[result.types["cell_type"] == "rare"].itertuples()
    assert rare.n_moved == 0
    assert rare.why.endswith("here are fewer than 5 cells")


def test_a_type_of_one_site_moves_with_its_batch_near_landmarks(adata):
    result = simulate(rename(adata, lambda _: "own", types=("type0",)), **QUICK)
    (own,) = result.types[result.types["cell_type"] == "own"].itertuples()
    assert own.n_moved == own.n_cells
    assert own.why.startswith("moves with its batch")


def test_a_type_that_one_site_spells_otherwise_is_asked_about(adata):
    with pytest.warns(UserWarning, match="site 'site2': types that no other site reports .*'Type_0', is it 'type0'"):
        simulate(rename(adata, lambda _: "Type_0", types=("type0",)), **QUICK)


def test_a_newcomer_none_of_whose_types_is_known_is_refused_unless_it_may_stay(adata, tmp_path):
    simulate(adata, **QUICK).model.save(tmp_path / "model")
    newcomer = rename(make_adata(60, n_batches=1, seed=1), "{}s".format, sites=("site0",))
    model = FedSCGEN.load(tmp_path / "model", newcomer, batch_key="batch")
    with pytest.raises(NoSharedLabelError, match=r"no cell type of batch 'site0' .*'type0s', is it 'type0'"):
        model.correct()
    table = model.correct(allow_unaligned=True).uns["fedscgen_types"]
    assert table["why"].str.startswith("moves with its batch").all()


def test_whole_numbers_name_the_same_types_with_and_without_missing_values(adata):
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}
    for part in parts.values():
        part.obs["cell_type"] = part.obs["cell_type"].str[4:].astype(int).to_numpy()
    numbers = parts["site2"].obs["cell_type"].astype(float)
    numbers.iloc[:2] = np.nan
    parts["site2"].obs["cell_type"] = numbers
    result = simulate(parts, "hospital", unlabeled_category="unknown", **QUICK)
    assert result.references.labels == ("0", "1", "2", "3")
    assert result.corrected.obs["fedscgen_moved"].all()


def test_one_site_alone_is_refused_unless_it_is_asked_for(adata):
    adata.obs["site"] = "only"
    with pytest.raises(ValueError, match=r"one site alone, 'only'.*site_key='site'.*min_sites=1"):
        simulate(adata, "site", batch_key="batch", **QUICK)
    assert simulate(adata, "site", batch_key="batch", min_sites=1, **QUICK).corrected.obs["fedscgen_moved"].all()


@pytest.fixture
def one_raw(adata):
    """One site's cells as counts, the others' as logarithms; and all as logarithms of those counts."""
    counts = adata.copy()
    counts.X = counts.X.toarray()
    raw = (counts.obs["batch"] == "site1").to_numpy()
    counts.X[raw] = np.rint(np.expm1(counts.X[raw]) * 3)
    logged = counts.copy()
    logged.X[raw] = np.log1p(counts.X[raw] / counts.X[raw].sum(axis=1, keepdims=True) * 1e4)
    return counts, logged


def test_counts_at_one_site_among_logarithms_are_refused_or_normalised(one_raw):
    counts, logged = one_raw
    with pytest.raises(ValueError, match=r"site 'site1': X looks like raw or unlogged.*SiteOptions\(normalize=True\)"):
        simulate(counts, **QUICK)
    before = counts.X.copy()
    result, expected = simulate(counts, normalize=True, **QUICK), simulate(logged, **QUICK)
    np.testing.assert_array_equal(counts.X, before)
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], expected.corrected.obsm["X_fedscgen"], atol=1e-3)
    for of_result, of_logged in ((result.corrected.X, logged.X), (result.model.adata.X, expected.model.adata.X)):
        np.testing.assert_allclose(of_result, of_logged, rtol=1e-5)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        simulate(logged, normalize=True, **QUICK)
    assert not leave_out_pandas(warned)
