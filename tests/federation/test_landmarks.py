"""The default correction in a federation: landmarks, found by sums over the sites as if all cells lay in one place."""

import numpy as np
import pytest

from cells import SMALL, leave_out_pandas, make_adata
from fedscgen.correction import LandmarkSums, Question
from fedscgen.federation import FederationSettings, InProcessTransport, Server
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator
from quick import QUICK, make_client, simulate

UNTRAINED = {**QUICK, "n_rounds": 0}
NOT_ANNOTATED = "not annotated"


def split(adata):
    return {site: adata[adata.obs["batch"] == site].copy() for site in adata.obs["batch"].cat.categories}


def hide_labels(adata, share):
    """Take its label from a share of the cells."""
    labels = adata.obs["cell_type"].astype(object)
    labels[np.random.default_rng(0).random(adata.n_obs) < share] = NOT_ANNOTATED
    adata.obs["cell_type"] = labels.astype("category")


def uncorrected(model):
    """Where the embedding would have each cell if it had not moved."""
    return model.references.embed(model.get_latent_representation().astype(np.float64))


def moves_of(result):
    """How far each cell has moved in the embedding."""
    return result.corrected.obsm["X_fedscgen"] - uncorrected(result.model)


def distance_between_sites(adata, embedding):
    """How far the sites' means of a type lie from their common mean, over how far the types' means lie apart."""
    types, sites = (adata.obs[key].to_numpy() for key in ("cell_type", "batch"))
    means = np.array(
        [[embedding[(types == t) & (sites == s)].mean(axis=0) for s in np.unique(sites)] for t in np.unique(types)]
    )
    return (means - means.mean(axis=1, keepdims=True)).std() / means.mean(axis=1).std(axis=0).mean()


@pytest.mark.parametrize("n_rounds", [0, 2])
@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_a_federation_equals_a_correction_with_all_cells_in_one_place(adata, n_rounds, hidden):
    labels = {}
    if hidden:
        hide_labels(adata, hidden)
        labels = {"unlabeled_category": NOT_ANNOTATED}
    result = simulate(adata, **{**QUICK, "n_rounds": n_rounds}, **labels, min_cells=1, seed=0)
    landmarks = result.model.get_references(min_cells=1)
    assert result.references.kind == landmarks.kind == "landmarks"
    assert result.references.labels == landmarks.labels == ("type0", "type1", "type2", "type3")
    np.testing.assert_array_equal(result.references.types, landmarks.types)
    np.testing.assert_allclose(result.references.positions, landmarks.positions, atol=1e-4)
    expected, corrected = result.model.correct(references=landmarks), result.corrected
    np.testing.assert_allclose(corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-4)
    np.testing.assert_allclose(corrected.to_df("fedscgen_corrected"), expected.to_df("fedscgen_corrected"), atol=1e-4)
    np.testing.assert_allclose(corrected.obs["fedscgen_confidence"], expected.obs["fedscgen_confidence"], atol=1e-4)
    for column in ("fedscgen_cell_type", "fedscgen_label_conflict"):
        assert list(corrected.obs[column]) == list(expected.obs[column])


def test_a_federation_with_few_labels_equals_a_correction_with_all_cells_in_one_place():
    adata = make_adata(n_cells=450)
    hide_labels(adata, 0.93)
    result = simulate(adata, unlabeled_category=NOT_ANNOTATED, min_cells=5, seed=0, **UNTRAINED)
    landmarks = result.model.get_references(min_cells=5)
    assert result.references.labels == landmarks.labels == ("type0", "type1", "type2", "type3")
    np.testing.assert_allclose(result.references.positions, landmarks.positions, atol=1e-4)


def test_sites_meet_type_by_type():
    adata = make_adata(n_cells=450)
    result = simulate(adata, **UNTRAINED)
    before = distance_between_sites(adata, uncorrected(result.model))
    after = distance_between_sites(adata, result.corrected.obsm["X_fedscgen"])
    assert after < 0.3 * before


def test_without_any_label_sites_meet_too():
    adata = make_adata(n_cells=450)
    result = simulate(adata, labels_key=None, **UNTRAINED)
    assert result.references.labels == ()
    before = distance_between_sites(adata, uncorrected(result.model))
    after = distance_between_sites(adata, result.corrected.obsm["X_fedscgen"])
    assert after < 0.6 * before


def test_without_labels_nothing_is_said_of_types(adata):
    del adata.obs["cell_type"]
    result = simulate(adata, labels_key=None, **QUICK)
    assert list(result.corrected.obs.columns) == [*adata.obs.columns, "fedscgen_moved"]
    expected = result.model.correct()
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)


def test_the_order_of_sites_does_not_matter_for_a_given_model(adata, tmp_path):
    """What differs otherwise is where each site's random numbers come from, so which cells it validates on."""
    simulate(adata, **QUICK).model.save(tmp_path / "model")
    parts = split(adata)
    orders = (parts, dict(reversed(parts.items())))
    first, second = (simulate(order, "site", init_model=tmp_path / "model", **UNTRAINED) for order in orders)
    np.testing.assert_allclose(first.references.positions, second.references.positions, atol=1e-9)
    again = second.corrected[first.corrected.obs_names]
    np.testing.assert_allclose(first.corrected.obsm["X_fedscgen"], again.obsm["X_fedscgen"], atol=1e-5)


def test_a_seed_says_where_landmarks_begin(adata, tmp_path):
    simulate(adata, **QUICK).model.save(tmp_path / "model")
    first, again, other = (
        simulate(adata, init_model=tmp_path / "model", seed=seed, **UNTRAINED).references for seed in (5, 5, 6)
    )
    assert first.to_json() == again.to_json()
    assert not np.allclose(first.positions, other.positions)


@pytest.mark.parametrize(("label_noise", "unlike"), [(0.0, 1e-5), (0.02, 0.03)])
def test_types_of_one_site_alone_move_with_their_batch(label_noise, unlike):
    adata = make_adata(n_cells=450)
    of_site = (adata.obs["batch"] == "site1").to_numpy()
    labels = adata.obs["cell_type"].astype(str)
    own = of_site & labels.isin(["type2", "type3"]).to_numpy()
    labels[own] = "own"
    adata.obs["cell_type"] = labels.astype("category")
    result = simulate(adata, label_noise=label_noise, **UNTRAINED)
    assert result.references.labels == ("type0", "type1", "type2", "type3")
    moves = moves_of(result)
    shift = moves[of_site & ~own].mean(axis=0)
    assert moves[own].std(axis=0).max() < unlike * np.linalg.norm(shift)
    assert np.linalg.norm(moves[own][0] - shift) < 0.3 * np.linalg.norm(shift)
    obs = result.corrected.obs[own]
    assert (obs["fedscgen_cell_type"] == "own").all()
    assert obs["fedscgen_confidence"].isna().all()
    assert not obs["fedscgen_label_conflict"].any()


def test_types_of_few_cells_move_too_though_nothing_is_told_of_them():
    adata = make_adata(n_cells=450)
    at_site = np.flatnonzero((adata.obs["batch"] == "site0") & (adata.obs["cell_type"] == "type2"))
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), at_site[3:])].copy()
    result = simulate(adata, **UNTRAINED)
    few = ((adata.obs["batch"] == "site0") & (adata.obs["cell_type"] == "type2")).to_numpy()
    assert few.sum() == 3
    assert np.linalg.norm(moves_of(result)[few], axis=1).min() > 0.1


def test_batches_within_a_site_move_each_by_itself(adata):
    """As if each were a site of its own, since the sums over all batches are the same."""
    adata.obs["hospital"] = np.where(adata.obs["batch"] == "site2", "b", "a")
    result = simulate(adata, "hospital", batch_key="batch", min_cells=1, **UNTRAINED)
    expected = result.model.correct(references=result.references)
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)
    moves = moves_of(result)
    means = [moves[(adata.obs["batch"] == batch).to_numpy()].mean(axis=0) for batch in ("site0", "site1")]
    assert np.linalg.norm(means[0] - means[1]) > 0.1


@pytest.mark.parametrize("labels_key", ["cell_type", None])
def test_one_site_alone_finds_landmarks_of_its_own_batches(adata, labels_key):
    adata.obs["site"] = "only"
    options = {**UNTRAINED, "label_noise": 0.1, "seed": 7}
    result = simulate(adata, "site", min_sites=1, batch_key="batch", labels_key=labels_key, **options)
    assert "sums near landmarks" not in set(result.ledger["kind"])
    landmarks = result.model.get_references(label_noise=0.1, seed=7)
    expected = result.model.correct(references=landmarks).obsm["X_fedscgen"]
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], expected)
    assert np.abs(expected - landmarks.embed(result.model.get_latent_representation())).max() > 0.1
    assert result.references == result.model.references == landmarks
    np.testing.assert_array_equal(result.model.correct().obsm["X_fedscgen"], expected)


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_one_site_alone_keeps_the_references_by_cell_type_of_its_batches(adata, kind):
    adata.obs["site"] = "only"
    result = simulate(adata, "site", min_sites=1, batch_key="batch", reference=kind, **UNTRAINED)
    assert result.model.references.to_json() == result.model.get_references(kind=kind).to_json()
    embedding = result.model.correct().obsm["X_fedscgen"]
    np.testing.assert_allclose(embedding, result.corrected.obsm["X_fedscgen"], atol=1e-6)
    assert np.abs(embedding - result.model.get_latent_representation()).max() > 0.01


def test_one_site_alone_says_that_its_labels_are_lost(adata):
    adata.obs["site"] = "only"
    labels = adata.obs["batch"].astype(str) + adata.obs["cell_type"].astype(str)
    adata.obs["cell_type"] = labels.where(np.arange(adata.n_obs) > 0, "?")
    with pytest.warns(UserWarning, match="cells move without labels, .* check that the labels are spelled") as warned:
        result = simulate(adata, "site", min_sites=1, batch_key="batch", unlabeled_category="?", **UNTRAINED)
    assert len(leave_out_pandas(warned)) == 1
    assert not result.uses_labels


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
@pytest.mark.parametrize("labels_key", ["cell_type", None])
def test_one_site_with_one_batch_says_that_there_is_nothing_to_align(adata, labels_key, caplog):
    adata.obs["site"] = "only"
    result = simulate(adata, "site", min_sites=1, labels_key=labels_key, **UNTRAINED)
    assert "cells stay where they are: all cells are of one batch" in caplog.text
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], result.model.get_latent_representation())


def test_a_wrong_label_is_called_into_question_at_its_site():
    adata = make_adata(n_cells=450)
    truth = adata.obs["cell_type"].astype(str)
    wrong = np.flatnonzero(truth == "type0")[::10]
    adata.obs["cell_type"] = np.where(np.isin(np.arange(adata.n_obs), wrong), "type1", truth)
    obs = simulate(adata, **UNTRAINED).corrected.obs
    assert obs["fedscgen_label_conflict"].iloc[wrong].mean() > 0.8
    assert obs["fedscgen_label_conflict"].mean() < 0.1
    assert (obs["fedscgen_cell_type"] == adata.obs["cell_type"]).all(), "a given label stays"


def test_labels_that_may_be_wrong_count_less():
    adata = make_adata(n_cells=450)
    rng, truth = np.random.default_rng(0), adata.obs["cell_type"].astype(str).to_numpy()
    wrong = rng.random(adata.n_obs) < 0.25
    adata.obs["cell_type"] = np.where(wrong, [f"type{i}" for i in rng.integers(4, size=adata.n_obs)], truth)
    sure, unsure = (simulate(adata, label_noise=noise, **UNTRAINED) for noise in (0.0, 0.2))
    assert unsure.references.label_noise == 0.2
    adata.obs["cell_type"] = truth
    gaps = [distance_between_sites(adata, result.corrected.obsm["X_fedscgen"]) for result in (sure, unsure)]
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize("option", [{"shrink": True}, {"unlabeled": "mean"}])
def test_options_for_references_by_cell_type_are_refused_before_anything_is_computed(adata, option, monkeypatch):
    monkeypatch.setattr(FedSCGEN, "get_second_moments", None)
    with pytest.raises(Exception, match="these are for references of each type; cells move to landmarks by one rule"):
        simulate(adata, **option, **QUICK)


def test_a_landmark_counts_with_the_cells_of_all_batches_of_a_site():
    adata = make_adata(n_cells=450)
    adata.obs["hospital"] = np.where(adata.obs["batch"] == "site2", "b", "a")
    part = adata[adata.obs["hospital"] == "a"].copy()
    landmarks = simulate(adata, "hospital", batch_key="batch", **UNTRAINED)
    codes = part.obs["cell_type"].cat.codes.to_numpy()
    latent = landmarks.model.get_latent_representation(part)
    batches = part.obs["batch"].cat.codes.to_numpy()
    question = Question("holders", landmarks.references)
    both, *each = (
        LandmarkSums(latent[own], batches[own], codes[own], 4, min_cells=15).answer(question)["holders"]
        for own in (batches >= 0, batches == 0, batches == 1)
    )
    assert (both >= np.maximum(*each)).all()
    assert both.sum() > np.maximum(*each).sum()


def test_a_saved_result_corrects_a_new_site(tmp_path):
    adata = make_adata(n_cells=450)
    new = adata[adata.obs["batch"] == "site2"].copy()
    result = simulate(adata[adata.obs["batch"] != "site2"].copy(), **UNTRAINED)
    result.model.save(tmp_path / "model")
    loaded = FedSCGEN.load(tmp_path / "model", new[:, ::-1].copy())
    assert loaded.references.to_json() == result.references.to_json()
    embeddings = [*loaded.correct().obsm["X_fedscgen"], *result.corrected.obsm["X_fedscgen"]]
    cells = [*new.obs_names, *result.corrected.obs_names]
    unmoved = [*uncorrected(loaded), *uncorrected(result.model)]
    before, after = (distance_between_sites(adata[cells], np.array(vectors)) for vectors in (unmoved, embeddings))
    assert after < 0.4 * before


def test_a_federation_says_that_references_by_cell_type_mislead(adata, caplog):
    for kind, warned in (("landmarks", False), ("mean", True)):
        caplog.clear()
        simulate(adata, reference=kind, **UNTRAINED)
        assert ("don't compare types, nor test genes between them" in caplog.text) == warned


def test_a_second_run_gives_the_same_landmarks(adata):
    """Nothing of the first one stays at a site."""
    aggregator = PlainAggregator()
    clients = [
        make_client(site, part, aggregator.contributor(site), seed=i)
        for i, (site, part) in enumerate(split(adata).items())
    ]
    settings = FederationSettings(n_rounds=0, model=SMALL, seed=0)
    first, second = (Server(InProcessTransport(clients), aggregator, settings) for _ in range(2))
    first.run()
    second.run()
    np.testing.assert_array_equal(second.references.positions, first.references.positions)
