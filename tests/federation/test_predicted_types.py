"""Sites with few labels or none: others' labels name their cells, if enough sites have them."""

from dataclasses import replace

import numpy as np
import pytest

from cells import SMALL, leave_out_pandas, make_adata
from fedscgen._types import Message
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation import FederationSettings, InProcessTransport, Server, SiteError
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator, make_aggregator
from quick import make_client, propose, simulate

SETTINGS = FederationSettings(n_rounds=0, n_epochs=1, model=SMALL, seed=0)
NO_LABELS = {"labels_key": None}
TYPES = ("type0", "type1", "type2", "type3")
FALL_BACK = (
    "cells move without labels, and none gets a name: no cell type is reported by 2 sites: check that labels are"
)


@pytest.fixture
def cells():
    """450 cells of three sites."""
    return make_adata(n_cells=450)


def split(adata):
    return {site: adata[adata.obs["batch"] == site].copy() for site in adata.obs["batch"].cat.categories}


def run(adata, *, secure="plain", settings=SETTINGS, **options):
    """A federation; options of clients are by site. The server, and the sites' corrected cells."""
    parts = split(adata)
    aggregator = make_aggregator(secure, len(parts))
    clients = {
        site: make_client(site, part, aggregator.contributor(site), **options.get(site, {}))
        for site, part in parts.items()
    }
    server = Server(InProcessTransport(list(clients.values())), aggregator, settings)
    with aggregator:
        server.run()
    return server, {site: client.corrected for site, client in clients.items()}


def is_right(adata, corrected):
    """Whether each cell's type is the one that was drawn for it."""
    return (corrected.obs["fedscgen_cell_type"] == adata.obs.loc[corrected.obs_names, "cell_type"].astype(str)).mean()


@pytest.mark.parametrize("secure", ["plain", "masked"])
def test_a_site_without_any_label_gets_its_types_named(cells, secure):
    if secure == "masked":
        pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    server, corrected = run(cells, secure=secure, site2=NO_LABELS)
    assert server.references.labels == TYPES
    obs = corrected["site2"].obs
    assert is_right(cells, corrected["site2"]) > 0.95
    assert not obs["fedscgen_label_conflict"].any()
    assert is_right(cells, corrected["site0"]) == 1, "given labels stay"


def test_types_of_a_site_without_labels_meet_those_of_the_others(cells):
    server, corrected = run(cells, site2=NO_LABELS)
    model = simulate(cells, n_rounds=0, model=SMALL, show_progress=False).model
    gaps = []
    for vectors in (server.references.embed(model.get_latent_representation()), None):
        means = {}
        for site, part in corrected.items():
            rows = cells.obs_names.get_indexer(part.obs_names)
            own = part.obsm["X_fedscgen"] if vectors is None else vectors[rows]
            truth = cells.obs["cell_type"].to_numpy()[rows]
            means[site] = np.array([own[truth == label].mean(axis=0) for label in TYPES])
        gaps.append(np.linalg.norm(means["site2"] - (means["site0"] + means["site1"]) / 2, axis=1).mean())
    assert gaps[1] < 0.6 * gaps[0]


@pytest.mark.parametrize("min_confidence", [0.0, 0.5, 0.95, 1.0])
def test_a_cell_is_unknown_where_no_type_is_probable_enough(cells, min_confidence):
    _, corrected = run(cells, site2={**NO_LABELS, "min_confidence": min_confidence})
    obs = corrected["site2"].obs
    unknown = obs["fedscgen_cell_type"] == "unknown"
    np.testing.assert_array_equal(unknown, obs["fedscgen_confidence"] < min_confidence)
    assert unknown.any() == (min_confidence > 0)
    assert set(obs["fedscgen_cell_type"][~unknown]) <= set(TYPES)
    assert "unknown" not in set(corrected["site0"].obs["fedscgen_cell_type"])


def test_what_is_called_unknown_is_more_often_wrong(cells):
    _, corrected = run(cells, site2={**NO_LABELS, "min_confidence": 0.0})
    obs = corrected["site2"].obs
    right = obs["fedscgen_cell_type"] == cells.obs.loc[obs.index, "cell_type"].astype(str)
    doubtful = obs["fedscgen_confidence"] < obs["fedscgen_confidence"].quantile(0.1)
    assert right[~doubtful].mean() > right[doubtful].mean()


def two_sites(adata):
    return adata[adata.obs["batch"] != "site2"].copy()


def test_labels_of_one_site_alone_name_no_cell_of_another_unless_all_sites_say_so(cells, caplog):
    cells = two_sites(cells)
    with pytest.warns(
        UserWarning, match=f"{FALL_BACK}.*; with min_holders=1 at all sites, labels of one site serve all"
    ):
        server, corrected = run(cells, site1=NO_LABELS)
    assert server.references.labels == ()
    assert "fedscgen_cell_type" not in corrected["site1"].obs
    caplog.clear()
    server, corrected = run(cells, site0={"min_holders": 1}, site1={**NO_LABELS, "min_holders": 1})
    assert server.references.labels == TYPES
    assert not caplog.text
    assert is_right(cells, corrected["site1"]) > 0.85


@pytest.mark.parametrize("wishes", [(1, 2), (2, 1)])
def test_the_largest_min_holders_counts_for_labels_too(cells, wishes):
    first, second = ({"min_holders": wish} for wish in wishes)
    with pytest.warns(UserWarning, match=FALL_BACK):
        server, _ = run(two_sites(cells), site0=first, site1={**NO_LABELS, **second})
    assert server.references.labels == ()


def test_a_type_of_two_sites_is_unknown_where_one_asks_for_three(cells):
    cells = cells[~((cells.obs["batch"] == "site0") & (cells.obs["cell_type"] == "type3"))].copy()
    assert run(cells)[0].references.labels == TYPES
    assert run(cells, site1={"min_holders": 3})[0].references.labels == TYPES[:3]


def test_names_that_differ_everywhere_are_refused_while_all_cells_have_one(cells, caplog):
    """They seem to be spelled differently; where some cells have none, they may be different types."""
    labels = cells.obs["batch"].astype(str) + cells.obs["cell_type"].astype(str)
    cells.obs["cell_type"] = labels
    with pytest.raises(NoSharedLabelError, match="check that labels are spelled alike everywhere"):
        run(cells)
    cells.obs["cell_type"] = labels.where(np.arange(cells.n_obs) % 10 > 0, "?")
    with pytest.warns(UserWarning, match=FALL_BACK):
        server, _ = run(cells, **{site: {"unlabeled_category": "?"} for site in split(cells)})
    assert server.references.labels == ()


@pytest.mark.parametrize("hidden", [1, 15])
def test_a_result_tells_whether_labels_told_where_cells_belong(cells, hidden):
    labels = cells.obs["batch"].astype(str) + cells.obs["cell_type"].astype(str)
    options = {"unlabeled_category": "?", "n_rounds": 0, "model": SMALL, "show_progress": False}
    assert simulate(cells, **options).uses_labels
    cells.obs["cell_type"] = labels.where(np.arange(cells.n_obs) >= hidden, "?")
    with pytest.warns(UserWarning, match=FALL_BACK) as warned:
        result = simulate(cells, **options)
    assert not result.uses_labels
    messages = {str(one.message) for one in leave_out_pandas(warned)}
    assert len(messages) == 1
    assert "min_holders" not in messages.pop(), "all sites have labels"


def test_labels_of_few_cells_are_lost_with_a_warning_too(cells):
    sites = split(cells)
    for part in sites.values():
        part.obs["cell_type"] = [f"cell {name}" for name in part.obs_names]
    options = {"n_rounds": 0, "model": SMALL, "show_progress": False}
    with pytest.raises(NoSharedLabelError, match="no cell type is reported by 2 sites"):
        simulate(sites, **options)
    with pytest.warns(UserWarning, match=FALL_BACK):
        run(cells, site0={"min_cells": 1000}, site1=NO_LABELS, site2=NO_LABELS)


@pytest.mark.parametrize("kind", ["landmarks", "mean"])
def test_a_mean_of_more_sites_than_there_are_is_refused_before_anything_is_computed(cells, kind, monkeypatch):
    monkeypatch.setattr(FedSCGEN, "_encode", None)
    monkeypatch.setattr(FedSCGEN, "get_second_moments", None)
    options = {"model": SMALL, "show_progress": False, "reference": kind}
    message = r"min_holders=4 at site 'site0', but 3 sites take part \(site0, site1, site2\), .*: lower it to 3 or less"
    with pytest.raises(ValueError, match=message):
        simulate(cells, min_holders=4, **options)
    with pytest.raises(ValueError, match="min_holders=5 at site 'site1', but 3 sites take part"):
        run(cells, settings=replace(SETTINGS, reference=kind), site1={"min_holders": 5}, site2={"min_holders": 4})


def test_a_site_that_is_alone_has_nobody_to_hold_anything_with(cells):
    cells.obs["site"] = "only"
    result = simulate(
        cells, "site", min_sites=1, batch_key="batch", min_holders=3, n_rounds=0, model=SMALL, show_progress=False
    )
    assert result.references.labels == TYPES


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_references_by_cell_type_need_a_shared_type(cells, kind):
    cells.obs["cell_type"] = cells.obs["batch"].astype(str) + cells.obs["cell_type"].astype(str)
    cells.obs.loc[cells.obs_names[::10], "cell_type"] = "?"
    options = {"unlabeled_category": "?", "reference": kind, "model": SMALL, "show_progress": False}
    with pytest.raises(
        NoSharedLabelError, match=r"by 2 sites: .*, or use reference='landmarks' without labels \(labels_"
    ):
        simulate(cells, **options)


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_a_site_without_labels_is_told_at_once_that_references_by_cell_type_need_some(cells, kind):
    with pytest.raises(SiteError, match="need") as raised:
        run(cells, settings=replace(SETTINGS, reference=kind), site2=NO_LABELS)
    assert "failed at 'genes and cell types'" in str(raised.value)


def test_a_federation_without_any_label_sums_under_masks(cells):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    options = {"labels_key": None, "n_rounds": 0, "model": SMALL, "show_progress": False}
    plain, masked = (simulate(cells, secure=secure, **options) for secure in ("plain", "masked"))
    assert masked.references.labels == ()
    np.testing.assert_allclose(masked.references.positions, plain.references.positions, atol=1e-5)
    np.testing.assert_allclose(masked.corrected.obsm["X_fedscgen"], plain.corrected.obsm["X_fedscgen"], atol=1e-3)
    uncorrected = masked.references.embed(masked.model.get_latent_representation())
    assert np.abs(masked.corrected.obsm["X_fedscgen"] - uncorrected).max() > 0.1
    left = masked.ledger[masked.ledger["sender"] != "server"]
    in_the_clear = set(left.loc[left["protection"] == "none", "kind"])
    assert in_the_clear == {"genes and cell types", "final weights and references"}


def test_a_site_reports_types_of_which_enough_cells_are_to_be_expected(cells):
    """Four labelled cells among sixty without a label stand for more than five; among labels throughout they don't."""
    part = split(cells)["site0"]
    labels = part.obs["cell_type"].astype(str)
    labels.iloc[np.flatnonzero(labels == "type3")[4:]] = "type0"
    for hidden, reported in ((0, list(TYPES[:3])), (60, list(TYPES))):
        part.obs["cell_type"] = labels
        others = np.flatnonzero(labels != "type3")
        part.obs.iloc[others[:hidden], part.obs.columns.get_loc("cell_type")] = "?"
        client = make_client("site0", part, PlainAggregator().contributor("site0"), unlabeled_category="?")
        for kind, expected in (("landmarks", reported), ("mean", list(TYPES[:3]))):
            answer = Message.from_bytes(client.handle(propose(reference=kind).to_message().to_bytes())).meta
            assert answer["labels"] == expected
            assert answer["complete"] == (hidden == 0)


def test_a_site_without_labels_reports_none_though_its_cells_have_a_column(cells):
    client = make_client("site0", split(cells)["site0"], PlainAggregator().contributor("site0"), labels_key=None)
    answer = Message.from_bytes(client.handle(propose().to_message().to_bytes()))
    assert {name: answer.meta[name] for name in ("labels", "complete", "hashed", "min_holders")} == {
        "labels": [], "complete": False, "hashed": False, "min_holders": 2
    }  # fmt: skip
    assert b"type1" not in answer.to_bytes()
