"""Cells without a label in a federation with references by cell type: never reported, moved by their neighbours."""

import numpy as np
import pytest

from cells import SMALL
from fedscgen import Message
from fedscgen.federation import FederationSettings, InProcessTransport, Server
from fedscgen.secure import MaskedAggregator, PlainAggregator
from quick import QUICK, make_client, propose, simulate

UNKNOWN = "not annotated"


class Recorded(InProcessTransport):
    """Keeps every answer of every site."""

    def __init__(self, clients):
        super().__init__(clients)
        self.answers = []
        for client in clients:
            client.handle = self._recorded(client.handle)

    def _recorded(self, handle):
        def recorded(data):
            answer = handle(data)
            self.answers.append(bytes(answer))
            return answer

        return recorded


@pytest.fixture
def partial(adata):
    """Cells of three sites; at two of them a third has no label."""
    labels = adata.obs["cell_type"].astype(object)
    elsewhere = np.flatnonzero(adata.obs["batch"] != "site2")
    labels.iloc[elsewhere[::6]] = UNKNOWN
    labels.iloc[elsewhere[3::6]] = np.nan
    adata.obs["cell_type"] = labels.astype("category")
    return adata


def without_label(adata):
    labels = adata.obs["cell_type"]
    return (labels.isna() | (labels == UNKNOWN)).to_numpy()


def split(adata):
    return {site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}


@pytest.mark.parametrize("unlabeled", ["knn", "mean", "leave"])
@pytest.mark.parametrize("shrink", [False, True])
def test_sites_correct_as_a_model_of_all_cells_does(partial, unlabeled, shrink):
    options = {"unlabeled": unlabeled, "shrink": shrink}
    result = simulate(partial, unlabeled_category=UNKNOWN, reference="dominant", **options, **QUICK)
    expected = result.model.correct(**options)
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], expected.obsm["X_fedscgen"], atol=1e-5)
    if unlabeled == "knn":
        assert list(result.corrected.obs["fedscgen_cell_type"]) == list(expected.obs["fedscgen_cell_type"])
    else:
        assert "fedscgen_cell_type" not in result.corrected.obs
    moved = result.corrected.obsm["X_fedscgen"] - result.model.get_latent_representation()
    assert (np.abs(moved[without_label(partial)]).max() > 0.01) == (unlabeled != "leave")


def test_references_are_those_of_labelled_cells(partial):
    result = simulate(partial, unlabeled_category=UNKNOWN, reference="mean", min_cells=1, **QUICK)
    expected = result.model.get_references(kind="mean")
    assert result.references.labels == expected.labels == ("type0", "type1", "type2", "type3")
    np.testing.assert_array_equal(result.references.n_cells, expected.n_cells)
    np.testing.assert_allclose(result.references.means, expected.means, atol=1e-4)
    assert result.references.n_cells.sum() == (~without_label(partial)).sum()


def test_the_users_column_stays_and_a_saved_model_keeps_the_category(partial, tmp_path):
    before = partial.copy()
    result = simulate(partial, unlabeled_category=UNKNOWN, reference="mean", **QUICK)
    for obs in (partial.obs, result.corrected.obs.drop(columns=["fedscgen_cell_type", "fedscgen_moved"])):
        assert obs.equals(before.obs)
    known = ~without_label(partial)
    types = result.corrected.obs["fedscgen_cell_type"]
    assert list(types[known]) == list(before.obs["cell_type"][known])
    assert set(types) == {"type0", "type1", "type2", "type3"}
    result.model.save(tmp_path / "model")
    assert type(result.model).load(tmp_path / "model", partial).keys.unlabeled_category == UNKNOWN


@pytest.mark.parametrize("kind", ["landmarks", "dominant"])
def test_several_files_are_joined(partial, kind):
    options = {"unlabeled_category": UNKNOWN, "reference": kind, **QUICK}
    together = simulate(partial, **options).corrected
    joined = simulate(split(partial), "hospital", **options).corrected
    assert list(joined.obs["fedscgen_cell_type"]) == list(together.obs.loc[joined.obs_names, "fedscgen_cell_type"])


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
def test_a_site_without_labels_is_named_and_stays_where_it_is(partial):
    of_site = (partial.obs["batch"] == "site1").to_numpy()
    partial.obs.loc[of_site, "cell_type"] = UNKNOWN
    with pytest.warns(UserWarning, match=r"^site 'site1': no cell has a label in obs\['cell_type'\]: ") as caught:
        result = simulate(partial, unlabeled_category=UNKNOWN, reference="dominant", **QUICK)
    assert sum("no cell has a label" in str(warning.message) for warning in caught) == 1
    latent = result.model.get_latent_representation()
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"][of_site], latent[of_site], atol=1e-6)
    np.testing.assert_array_equal(result.corrected.obs["fedscgen_cell_type"].isna(), of_site)


def test_neither_the_category_nor_a_variance_crosses_the_wire(partial):
    aggregator = PlainAggregator()
    options = {"unlabeled_category": UNKNOWN, "shrink": True, "min_cells": 1}
    clients = [
        make_client(site, part, aggregator.contributor(site), **options) for site, part in split(partial).items()
    ]
    transport = Recorded(clients)
    settings = FederationSettings(n_rounds=1, n_epochs=1, model=SMALL, reference="dominant")
    Server(transport, aggregator, settings).run()
    wire = b"".join(transport.answers)
    assert UNKNOWN.encode() not in wire
    assert b"type3" in wire, "the search finds what does cross"
    answers = [Message.from_bytes(data) for data in transport.answers]
    described = [answer.meta["labels"] for answer in answers if answer.kind == "genes and cell types"]
    assert described == [["type0", "type1", "type2", "type3"]] * 3
    means = [answer for answer in answers if answer.kind == "cell type means"]
    assert [set(answer.arrays) for answer in means] == [{"keys", "values", "weight."}] * 3
    for client in clients:
        stats = client.model.get_label_stats()
        assert stats.variances.any()
        assert stats.variances.tobytes() not in wire
        assert not any(value.tobytes() in wire for value in stats.variances.ravel() if value)


def test_few_labelled_cells_are_not_reported_however_many_have_no_label(partial):
    obs = partial.obs
    at_site = np.flatnonzero((obs["batch"] == "site0") & (obs["cell_type"] == "type3"))
    assert len(at_site) > 5
    obs.iloc[at_site[4:], obs.columns.get_loc("cell_type")] = UNKNOWN
    client = make_client(
        "site0", split(partial)["site0"], PlainAggregator().contributor("site0"), unlabeled_category=UNKNOWN
    )
    answer = Message.from_bytes(client.handle(propose(reference="mean").to_message().to_bytes()))
    assert answer.meta["labels"] == ["type0", "type2"], "of type1 there are four with a label, too"


def test_a_dominant_site_stays_in_place_after_rounding_in_a_secure_sum(adata):
    pytest.importorskip("cryptography")
    masked = MaskedAggregator(reveal_keys=True)
    result = simulate(adata, secure=masked, reference="dominant", shrink=True, **QUICK)
    moved = np.abs(result.corrected.obsm["X_fedscgen"] - result.model.get_latent_representation()).max(axis=1)
    stats = result.model.get_label_stats()
    dominant = {(stats.batches[b], label) for b, label in zip(stats.counts.argmax(axis=0), stats.labels, strict=True)}
    at_reference = np.array([pair in dominant for pair in zip(adata.obs["batch"], adata.obs["cell_type"], strict=True)])
    assert moved[at_reference].max() < 1e-4
    assert moved[~at_reference].min() > 1e-3


def test_bad_options_are_refused_before_training(partial):
    with pytest.raises(ValueError, match="unknown unlabeled 'drop': choose one of 'knn', 'mean'"):
        simulate(partial, unlabeled_category=UNKNOWN, unlabeled="drop", **QUICK)
    with pytest.raises(ValueError, match=r"obs\['cell_type'\] is missing for .* or name an unlabeled_category"):
        simulate(partial, **QUICK)
