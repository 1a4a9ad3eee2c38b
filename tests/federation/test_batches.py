"""Batches that several columns tell apart."""

import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from typer.testing import CliRunner

from fedscgen.check import check_sites
from fedscgen.cli import app
from fedscgen.federation import SimulationSettings, SiteOptions, read_settings, write_settings
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator
from quick import QUICK, make_client, simulate

KEYS = ("donor", "lane")


@pytest.fixture
def cells(adata):
    """Two donors on two lanes at each site; one column holds numbers."""
    rng = np.random.default_rng(1)
    adata.obs["donor"] = pd.Categorical(rng.choice(["ann", "bob"], adata.n_obs))
    adata.obs["lane"] = rng.choice([1, 2], adata.n_obs)
    return adata


def joined(adata):
    return [f"{donor}, {lane}" for donor, lane in zip(adata.obs["donor"], adata.obs["lane"], strict=True)]


def test_a_model_takes_several_columns(cells, tmp_path):
    by_hand = cells.copy()
    by_hand.obs["both"] = joined(by_hand)
    corrected = []
    for adata, key in ((cells, list(KEYS)), (by_hand, "both")):
        FedSCGEN.setup_anndata(adata, batch_key=key)
        model = FedSCGEN(adata, n_hidden=16, n_latent=4)
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        corrected.append(model.correct())
    assert list(cells.obs["fedscgen_batch"]) == joined(cells)
    model.save(tmp_path / "model")
    newcomer = cells.copy()
    del newcomer.obs["fedscgen_batch"]
    loaded = FedSCGEN.load(tmp_path / "model", newcomer, batch_key=list(KEYS))
    np.testing.assert_array_equal(loaded.correct().obsm["X_fedscgen"], corrected[1].obsm["X_fedscgen"])
    assert corrected[0].uns["fedscgen_types"]["batch"].tolist() == corrected[1].uns["fedscgen_types"]["batch"].tolist()


def test_a_model_of_mudata_takes_columns_of_either_place(cells, tmp_path):
    by_hand = MuData({"rna": cells.copy()})
    by_hand.obs["both"] = joined(cells)
    mdata = MuData({"rna": cells})
    mdata.obs["lane"] = cells.obs["lane"]
    del cells.obs["lane"]
    corrected = []
    for data, key in ((mdata, KEYS), (by_hand, "both")):
        FedSCGEN.setup_mudata(data, batch_key=key)
        model = FedSCGEN(data, n_hidden=16, n_latent=4)
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        corrected.append(model.correct())
    assert list(mdata.obs["fedscgen_batch"]) == list(by_hand.obs["both"])
    assert corrected[0].uns["fedscgen_types"].equals(corrected[1].uns["fedscgen_types"])
    model.save(tmp_path / "model")
    del mdata.obs["fedscgen_batch"]
    loaded = FedSCGEN.load(tmp_path / "model", mdata, batch_key=list(KEYS))
    np.testing.assert_array_equal(loaded.correct().obsm["X_fedscgen"], corrected[1].obsm["X_fedscgen"])


@pytest.mark.parametrize("several", [False, True])
def test_a_simulation_equals_one_whose_column_was_joined_by_hand(cells, several):
    by_hand = cells.copy()
    by_hand.obs["both"] = joined(by_hand)
    data, other = cells, by_hand
    if several:
        data, other = (
            {site: whole[whole.obs["batch"] == site].copy() for site in whole.obs["batch"].unique()}
            for whole in (cells, by_hand)
        )
    result = simulate(data, "batch", batch_key=KEYS, seed=0, **QUICK)
    expected = simulate(other, "batch", batch_key="both", seed=0, **QUICK)
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], expected.corrected.obsm["X_fedscgen"])
    assert list(result.corrected.obs["fedscgen_batch"]) == joined(result.corrected)
    assert set(result.types["batch"]) == {"ann, 1", "ann, 2", "bob, 1", "bob, 2"}
    assert result.site.batch_key == KEYS
    assert "fedscgen_batch" not in cells.obs, "the user's cells stay as they are"
    again = simulate(data, "batch", batch_key=result.site.batch_key, seed=0, **QUICK)
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], again.corrected.obsm["X_fedscgen"])


def test_a_site_joins_the_columns_that_it_has(cells):
    data = {site: cells[cells.obs["batch"] == site].copy() for site in cells.obs["batch"].unique()}
    first, second, _ = data
    del data[first].obs["lane"], data[second].obs["lane"], data[second].obs["donor"]
    result = simulate(data, "hospital", batch_key=KEYS, **QUICK)
    batches = result.types.groupby("site")["batch"].agg(set)
    assert batches[first] == {"ann", "bob"}
    assert len(batches[second]) == 1
    assert len(batches.drop([first, second]).item()) == 4
    for site in data.values():
        for key in KEYS:
            site.obs.drop(columns=key, errors="ignore", inplace=True)
    with pytest.raises(KeyError, match="'donor'"):
        simulate(data, "hospital", batch_key=KEYS, **QUICK)


def test_a_deployed_site_and_a_check_take_them(cells):
    options = SiteOptions(batch_key=KEYS)
    client = make_client("here", cells, PlainAggregator().contributor("here"), batch_key=KEYS)
    assert client._keys.batch_key == "fedscgen_batch"
    (site,) = check_sites({"here": cells}, options=options).sites
    assert list(site.counts.index) == sorted(set(joined(cells)))


def test_settings_in_a_file_name_them_with_commas(tmp_path):
    settings = SimulationSettings(site=SiteOptions(batch_key=KEYS))
    path = tmp_path / "settings.toml"
    path.write_text(write_settings(settings))
    assert 'batch-key = "donor, lane"' in path.read_text()
    assert read_settings(path) == settings
    path.write_text("[site]\nbatch-key = 'donor'\n")
    assert read_settings(path).site.batch_key == "donor"
    path.write_text("[site]\nbatch-key = ['donor', 'lane']\n")
    assert read_settings(path).site.batch_key == KEYS


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ((), r"batch_key=\(\): name a column or several, or None"),
        (("donor", "cell_type"), r"batch_key and labels_key both name obs\['cell_type'\]"),
        (("donor", 3), r"batch_key=\('donor', 3\): expected a list of str"),
        (3, "batch_key=3: expected text"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        SiteOptions(batch_key=wrong)


def test_batches_that_would_get_one_name_and_missing_values_are_refused(cells):
    cells.obs["donor"] = "a, b"
    cells.obs["lane"] = "c"
    cells.obs.iloc[0, cells.obs.columns.get_loc("donor")] = "a"
    cells.obs.iloc[0, cells.obs.columns.get_loc("lane")] = "b, c"
    with pytest.raises(ValueError, match="two batches get one name: leave commas out of their names"):
        simulate(cells, batch_key=KEYS, **QUICK)
    cells.obs["lane"] = np.nan
    with pytest.raises(ValueError, match=r"obs\['lane'\] is missing for 150 cells"):
        simulate(cells, batch_key=KEYS, **QUICK)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning", "ignore:n_jobs:UserWarning")
def test_commands_take_the_option_several_times(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    both = ["--batch-key", "donor", "--batch-key", "lane"]
    run = ["simulate", tmp_path / "cells.h5ad", "-o", tmp_path / "out", "--settings", "components", *both]
    result = CliRunner().invoke(app, [str(argument) for argument in run])
    assert result.exit_code == 0, result.output
    assert "bob, 2" in result.output
    run = ["correct", tmp_path / "cells.h5ad", "-m", tmp_path / "out/model", "-o", tmp_path / "new.h5ad", *both]
    result = CliRunner().invoke(app, [str(argument) for argument in run])
    assert result.exit_code == 0, result.output
    assert "bob, 2" in result.output
