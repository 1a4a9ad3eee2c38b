"""A whole federation in one process: what it equals, what it leaves alone, what it refuses."""

import re

import numpy as np
import pytest
import scvi
import torch
from mudata import MuData

from cells import SMALL, make_adata
from fedscgen import federation
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation import FederationSettings, SiteError
from fedscgen.model import FedSCGEN
from quick import QUICK, simulate


def assert_same(weights, others, **tolerance):
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        np.testing.assert_allclose(array, others[name], err_msg=name, **(tolerance or {"rtol": 0}))


@pytest.mark.parametrize("batchnorm", ["pooled", "local", "averaged"])
def test_one_site_equals_local_training_exactly(adata, batchnorm):
    adata.obs["site"] = "only"
    options = {**QUICK, "n_rounds": 3, "n_epochs": 2, "batchnorm": batchnorm}
    result = simulate(adata, "site", min_sites=1, batch_key="batch", **options)
    alone = adata.copy()
    scvi.settings.seed = 0
    FedSCGEN.setup_anndata(alone)
    model = FedSCGEN(alone, **SMALL)
    FedSCGEN.begin_together([model])
    for _ in range(3):
        model.train_local(2)
    assert_same(result.model.get_weights(), model.get_weights())
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], model.correct().obsm["X_fedscgen"])


def test_one_site_equals_local_training_on_real_cells(pbmc):
    adata = pbmc.copy()
    adata.obs["site"] = "only"
    result = simulate(adata, "site", min_sites=1, batch_key="batch", **QUICK)
    scvi.settings.seed = 0
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    FedSCGEN.begin_together([model])
    model.train_local(1)
    model.train_local(1)
    assert_same(result.model.get_weights(), model.get_weights())


def test_strategies_agree_for_sites_of_equal_size(adata):
    adata.obs["batch"] = [f"site{i % 3}" for i in range(adata.n_obs)]
    plain, weighted = (simulate(adata, strategy=s, **QUICK) for s in ("fedavg", "weighted_fedavg"))
    assert_same(plain.model.get_weights(), weighted.model.get_weights(), rtol=1e-4, atol=1e-6)


def test_a_simulation_repeats_under_a_seed_and_differs_under_another(adata):
    first, again = simulate(adata, **QUICK), simulate(adata, **QUICK)
    scvi.settings.seed = 1
    other = simulate(adata, **QUICK)
    np.testing.assert_array_equal(first.corrected.obsm["X_fedscgen"], again.corrected.obsm["X_fedscgen"])
    assert not np.allclose(first.corrected.obsm["X_fedscgen"], other.corrected.obsm["X_fedscgen"])


def test_the_callers_random_numbers_go_on_undisturbed(adata):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    simulate(adata, **QUICK)
    assert torch.equal(torch.rand(3), expected)


def test_input_is_left_alone_and_cells_keep_their_order(adata):
    before = adata.copy()
    corrected = simulate(adata, **QUICK).corrected
    predicted = ["fedscgen_cell_type", "fedscgen_confidence", "fedscgen_label_conflict", "fedscgen_moved"]
    assert list(corrected.obs.columns) == [*before.obs.columns, *predicted]
    for result, obs in ((adata, adata.obs), (corrected, corrected.obs.drop(columns=predicted))):
        assert list(result.obs_names) == list(before.obs_names)
        assert obs.equals(before.obs)
        assert result.var.equals(before.var)
        assert (result.X != before.X).nnz == 0
    assert not adata.layers
    assert set(adata.obsm) == {"X_given"}
    assert not adata.uns
    assert corrected.obsm["X_fedscgen"].shape == (150, 4)
    assert np.isfinite(corrected.layers["fedscgen_corrected"].data).all()
    decoded = simulate(adata, denoise=True, **QUICK).corrected.layers["fedscgen_corrected"]
    assert isinstance(decoded, np.ndarray)
    assert np.isfinite(decoded).all()


def test_every_shared_type_meets_at_its_reference(adata):
    result = simulate(adata, reference="mean", min_cells=1, **QUICK)
    assert result.references.labels == ("type0", "type1", "type2", "type3")
    obs = adata.obs
    for label, target in zip(result.references.labels, result.references.means, strict=True):
        for site in obs["batch"].cat.categories:
            cells = ((obs["batch"] == site) & (obs["cell_type"] == label)).to_numpy()
            np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"][cells].mean(axis=0), target, atol=1e-4)


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_references_equal_those_chosen_with_all_cells_at_hand(adata, kind):
    result = simulate(adata, reference=kind, **QUICK)
    expected = result.model.get_references(kind=kind, min_cells=5)
    assert result.references.labels == expected.labels
    np.testing.assert_allclose(result.references.means, expected.means, atol=1e-4)
    np.testing.assert_array_equal(result.references.n_cells, expected.n_cells)


def test_batches_within_a_site_are_aligned_too(adata):
    adata.obs["hospital"] = np.where(adata.obs["batch"] == "site2", "b", "a")
    result = simulate(adata, "hospital", batch_key="batch", reference="dominant", min_cells=1, **QUICK)
    obs = adata.obs
    for label, target in zip(result.references.labels, result.references.means, strict=True):
        for batch in obs["batch"].cat.categories:
            cells = ((obs["batch"] == batch) & (obs["cell_type"] == label)).to_numpy()
            np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"][cells].mean(axis=0), target, atol=1e-4)


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_types_of_one_site_alone_have_no_reference_and_stay_where_they_are(adata, kind):
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs.loc[(adata.obs["batch"] == "site1") & (adata.obs["cell_type"] != "type0"), "cell_type"] = "own"
    with pytest.warns(UserWarning, match=r"site 'site1': 39 cells stay where they are \(39 of 'own'\)"):
        result = simulate(adata, reference=kind, **QUICK)
    assert "own" not in result.references.labels
    cells = (adata.obs["cell_type"] == "own").to_numpy()
    latent = result.model.get_latent_representation()
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"][cells], latent[cells], atol=1e-5)


def test_sites_may_differ_in_genes_and_their_order(adata, caplog):
    parts = {
        "a": adata[:70].copy(),
        "b": adata[70:110, ::-1].copy(),
        "c": adata[110:, [*range(5, 30), *range(3)]].copy(),
    }
    result = simulate(parts, "hospital", **QUICK)
    assert result.genes == [f"gene{i}" for i in (0, 1, 2, *range(5, 30))]
    assert "2 genes are not held by every site and left out (gene3, gene4, ...)" in caplog.text
    assert list(result.corrected.obs_names) == list(adata.obs_names)
    assert list(result.corrected.obs["hospital"].value_counts()[["a", "b", "c"]]) == [70, 40, 40]
    whole = simulate(
        {name: adata[part.obs_names, result.genes].copy() for name, part in parts.items()}, "hospital", **QUICK
    )
    expected = whole.corrected[:, result.corrected.var_names]
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)
    np.testing.assert_allclose(
        result.corrected.to_df("fedscgen_corrected"), expected.to_df("fedscgen_corrected"), atol=1e-5
    )


def test_cell_names_that_repeat_between_sites_get_the_site_appended(adata):
    result = simulate({"a": adata, "b": make_adata(seed=7)}, "hospital", **QUICK)
    assert list(result.corrected.obs_names[[0, -1]]) == ["cell0-a", "cell149-b"]


def test_expression_goes_where_it_is_wanted(adata):
    layer = simulate(adata, **QUICK).corrected.layers["fedscgen_corrected"]
    assert (layer != simulate(adata, expression="X", **QUICK).corrected.X).nnz == 0
    nowhere = simulate(adata, expression=None, reencode=True, **QUICK).corrected
    assert not nowhere.layers
    assert {"X_fedscgen", "X_fedscgen_reencoded"} <= set(nowhere.obsm)


def test_a_layer_holds_the_expression(adata):
    expected = simulate(adata, **QUICK)
    adata.layers["log"] = adata.X.copy()
    adata.X = None
    result = simulate(adata, layer="log", **QUICK)
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], expected.corrected.obsm["X_fedscgen"])


def test_history_is_tidy(adata):
    history = simulate(adata, **{**QUICK, "n_epochs": 3}).history
    columns = ["site", "round", "epoch", "train_loss", "validation_loss", "seconds", "federation_loss"]
    assert list(history.columns) == columns
    assert len(history) == 3 * 2 * 3
    assert set(history["epoch"]) == {1, 2, 3}
    assert np.isfinite(history[columns[3:]].to_numpy()).all()
    assert (history.groupby("round")["federation_loss"].nunique() == 1).all()


def test_training_stops_when_the_validation_loss_no_longer_improves(adata):
    options = {**QUICK, "n_rounds": 30, "lr": 0.2, "early_stopping_patience": 2}
    result = simulate(adata, **options)
    losses = result.history.groupby("round")["federation_loss"].first()
    assert len(losses) < 30
    whole = simulate(adata, **{**options, "early_stopping_patience": None, "n_rounds": int(losses.idxmin()) - 1 or 1})
    if losses.idxmin() > 1:
        assert_same(result.model.get_weights(), whole.model.get_weights())


def test_a_saved_result_corrects_a_new_site(adata, tmp_path):
    old, new = adata[adata.obs["batch"] != "site2"].copy(), adata[adata.obs["batch"] == "site2"].copy()
    result = simulate(old, reference="dominant", **QUICK)
    result.model.save(tmp_path / "model")
    corrected = FedSCGEN.load(tmp_path / "model", new[:, ::-1].copy()).correct()
    for label, target in zip(result.references.labels, result.references.means, strict=True):
        cells = (corrected.obs["cell_type"] == label).to_numpy()
        np.testing.assert_allclose(corrected.obsm["X_fedscgen"][cells].mean(axis=0), target, atol=1e-4)


def test_a_site_that_fails_is_named_with_its_round(adata, monkeypatch):
    original = FedSCGEN.train_local
    calls = []

    def dying(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 5:
            raise RuntimeError("out of memory")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(FedSCGEN, "train_local", dying)
    with pytest.raises(SiteError, match="site 'site1' failed at 'model weights' in round 2: out of memory"):
        simulate(adata, **QUICK)


def test_diverged_training_is_refused_by_the_site(adata, monkeypatch):
    original = FedSCGEN.get_weights
    monkeypatch.setattr(FedSCGEN, "get_weights", lambda self: {k: v * np.nan for k, v in original(self).items()})
    with pytest.raises(Exception, match="holds NaN or inf"):
        simulate(adata, **QUICK)


def test_without_a_shared_type_nothing_is_trained(adata, monkeypatch):
    adata.obs["cell_type"] = adata.obs["batch"].astype(str) + adata.obs["cell_type"].astype(str)
    monkeypatch.setattr(FedSCGEN, "train_local", None)
    with pytest.raises(NoSharedLabelError, match="no cell type is reported by 2 sites: check that labels are spelled"):
        simulate(adata, **QUICK)


def test_types_below_min_cells_are_not_shared(adata):
    with pytest.raises(NoSharedLabelError, match=r"lower min_cells, or correct without labels \(labels_key=None"):
        simulate(adata, min_cells=100, **QUICK)


def _other_genes(parts):
    parts["a"].var_names = [f"other{i}" for i in range(30)]


def _empty(parts):
    parts["b"] = parts["b"][:0].copy()


def _nan(parts):
    parts["b"].X = parts["b"].X.toarray()
    parts["b"].X[2, 2] = np.nan


def _no_labels(parts):
    del parts["a"].obs["cell_type"]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_other_genes, ValueError, "the sites share no gene (first of each: 'a': 'other0', 'b': 'gene0')"),
        (_empty, ValueError, "site 'b': there is nothing to work on: 0 cells x 30 genes"),
        (_nan, ValueError, "site 'b': X holds nan (first at cell 'cell72', gene 'gene2')"),
        (_no_labels, KeyError, "site 'a': obs['cell_type'] not found"),
    ],
)
def test_bad_sites_are_named(adata, spoil, error, message):
    parts = {"a": adata[:70].copy(), "b": adata[70:].copy()}
    spoil(parts)
    with pytest.raises(error, match=re.escape(message)):
        simulate(parts, **QUICK)


def test_bad_arguments_are_refused(adata):
    with pytest.raises(KeyError, match=r"obs\['hospital'\] not found"):
        simulate(adata, "hospital", **QUICK)
    with pytest.raises(TypeError, match="pass an AnnData or a mapping of AnnData by site, not list"):
        simulate([adata], **QUICK)
    with pytest.raises(ValueError, match="n_rounds=-1: from 0"):
        simulate(adata, **{**QUICK, "n_rounds": -1})
    with pytest.raises(ValueError, match="unknown strategy 'median'"):
        simulate(adata, strategy="median", **QUICK)
    with pytest.raises(ValueError, match="unknown reference 'median'"):
        simulate(adata, reference="median", **QUICK)
    with pytest.raises(ValueError, match="early_stopping_patience=0: at least 1 round"):
        simulate(adata, early_stopping_patience=0, **QUICK)
    with pytest.raises(ValueError, match="min_cells=0: at least 1"):
        simulate(adata, min_cells=0, **QUICK)
    with pytest.raises(ValueError, match="unknown aggregator 'magic'"):
        simulate(adata, secure="magic", **QUICK)


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_repeated_cell_names_are_refused(adata):
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]
    with pytest.raises(ValueError, match="obs_names are not unique: 'same' occurs 2 times"):
        simulate(adata, **QUICK)


def test_raw_counts_are_refused_by_site(adata):
    adata.X = (adata.X * 20).astype(int).astype(np.float32)
    with pytest.raises(ValueError, match="site 'site0': X looks like raw or unlogged counts"):
        simulate(adata, **QUICK)


def test_a_small_federation_of_two():
    result = simulate(make_adata(n_cells=24, n_batches=2, n_types=2), min_cells=1, **QUICK)
    assert np.isfinite(result.corrected.obsm["X_fedscgen"]).all()


def test_nothing_of_the_sites_stays_in_memory(adata):
    before = len(FedSCGEN._setup_adata_manager_store)
    result = simulate(adata, **QUICK)
    assert len(FedSCGEN._setup_adata_manager_store) == before + 1, "that of the result's own model"
    assert result.model.get_latent_representation().shape == (150, 4)


def test_weights_can_be_kept_after_each_round(adata):
    kept = {}
    result = simulate(adata, on_round=kept.__setitem__, **QUICK)
    assert list(kept) == list(range(1, QUICK["n_rounds"] + 1))
    for name, array in result.model.get_weights().items():
        np.testing.assert_array_equal(kept[QUICK["n_rounds"]][name], array)


def test_the_papers_preset_is_the_published_network_and_schedule(adata):
    settings = FederationSettings.from_preset("paper", n_rounds=1, model={"n_hidden": 16})
    result = federation.simulate(adata, settings=settings, show_progress=False)
    assert (settings.n_rounds, settings.n_epochs, settings.lr, settings.batch_size) == (1, 2, 1e-3, 50)
    assert (settings.strategy, settings.batchnorm, settings.fixed_batches) == ("fedavg", "averaged", True)
    assert settings.reference == result.references.kind == "dominant"
    assert not settings.restore_best_epoch
    assert settings.model == {**FedSCGEN.PRESETS["scarches"], "n_hidden": 16}
    assert "sums before training" not in set(result.ledger["kind"])
    with pytest.raises(ValueError, match="unknown settings 'nature': choose one of 'default', 'components', 'paper'"):
        federation.simulate(adata, settings="nature")


def test_a_federation_begins_where_its_sites_would_together(adata):
    result = simulate(adata, **QUICK)
    sites = []
    for site in adata.obs["batch"].cat.categories:
        cells = adata[adata.obs["batch"] == site].copy()
        FedSCGEN.setup_anndata(cells)
        sites.append(FedSCGEN(cells, **SMALL))
    FedSCGEN.begin_together(sites)
    together, federated = (model.get_weights()["linear_path.axes"] for model in (sites[0], result.model))
    # each site draws its validation cells anew
    explained = np.linalg.norm(together @ federated.T) ** 2 / SMALL["n_latent"]
    assert explained > 0.9


@pytest.mark.parametrize(
    "option",
    [
        {"lr_decay": 0.1},
        {"server_optimizer": "momentum"},
        {"proximal_weight": 10.0},
        {"restore_best_epoch": False},
        {"fixed_batches": True},
        {"batchnorm": "averaged"},
    ],
)
def test_each_setting_of_training_makes_a_difference(adata, option):
    options = {**QUICK, "n_rounds": 3, "n_epochs": 3, "lr": 0.01}
    plain, other = simulate(adata, **options), simulate(adata, **options, **option)
    weights = other.model.get_weights()
    assert any(not np.array_equal(array, weights[name]) for name, array in plain.model.get_weights().items())


def test_a_learning_rate_decays_from_round_to_round(adata):
    """With a rate that all but vanishes, later rounds change nothing that is learnt."""
    options = {**QUICK, "lr_decay": 1e-3, "n_epochs": 1}
    one, three = (simulate(adata, **{**options, "n_rounds": n}).model.get_weights() for n in (1, 3))
    np.testing.assert_allclose(one["encoder.hidden.0.weight"], three["encoder.hidden.0.weight"], atol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("lr_decay", 0.0), ("proximal_weight", -1.0)])
def test_settings_out_of_range_are_refused(adata, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: from"):
        simulate(adata, **{**QUICK, name: value})


def test_a_site_that_is_no_anndata_is_refused_with_the_remedy(adata):
    with pytest.raises(TypeError, match=r"site 'a' is a MuData: pass an AnnData, which of a MuData is the modality"):
        simulate({"a": MuData({"rna": adata}), "b": adata}, **QUICK)
