"""Server and clients over a transport on which sites fall silent."""

from dataclasses import replace

import numpy as np
import pytest

from cells import SMALL, make_adata
from fedscgen._types import Message
from fedscgen.federation import Client, FederationSettings, InProcessTransport, PolicyError, Server, SiteError
from fedscgen.model import FedSCGEN
from fedscgen.secure import AggregationError, PlainAggregator, make_aggregator

SETTINGS = FederationSettings(n_rounds=2, n_epochs=1, min_sites=1, model=SMALL, seed=0)


class Unreliable(InProcessTransport):
    """Loses a site from its n-th question on."""

    def __init__(self, clients, lost):
        super().__init__(clients)
        self.lost = lost
        self.asked = dict.fromkeys(self.sites, 0)

    def ask(self, messages):
        for site in messages:
            self.asked[site] += 1
        yield from super().ask({s: m for s, m in messages.items() if self.asked[s] <= self.lost.get(s, 99)})


def federation(adata, lost, settings=SETTINGS):
    aggregator = PlainAggregator()
    clients = [
        Client(site, adata[adata.obs["batch"] == site].copy(), aggregator.contributor(site), seed=i)
        for i, site in enumerate(adata.obs["batch"].cat.categories)
    ]
    return Server(Unreliable(clients, lost), aggregator, settings), clients


def test_the_federation_goes_on_without_a_site_that_falls_silent_in_training(adata, caplog):
    server, clients = federation(adata, {"site1": 5})
    server.run()
    assert server.sites == ["site0", "site2"]
    assert "no answer from site1: the federation goes on without" in caplog.text
    assert [client.corrected is None for client in clients] == [False, True, False]
    assert np.isfinite(clients[0].corrected.obsm["X_fedscgen"]).all()


def test_a_type_left_to_one_site_is_not_opened(adata):
    """With site1 gone, only site0 holds type0, whose mean would be its own."""
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs.loc[(adata.obs["batch"] == "site2") & (adata.obs["cell_type"] == "type0"), "cell_type"] = "type1"
    server, _ = federation(adata, {})
    server.run()
    assert "type0" in server.references.labels
    server, _ = federation(adata, {"site1": 5})
    server.run()
    assert "type0" not in server.references.labels


class Absent(InProcessTransport):
    """Sites are away at some of the questions of a kind, counted from 1."""

    def __init__(self, clients, absences):
        super().__init__(clients)
        self.absences = absences
        self.asked = []

    def ask(self, messages):
        (kind,) = {message.kind for message in messages.values()}
        self.asked.append((kind, *messages))
        n_asked = sum(asked[0] == kind for asked in self.asked)
        away = [site for site, absence in self.absences.items() if (kind, n_asked) in absence]
        yield from super().ask({site: message for site, message in messages.items() if site not in away})

    def asked_for(self, kind):
        """Whom each question of a kind went to."""
        return [sites for asked, *sites in self.asked if asked == kind]


def with_absences(adata, absences, settings=SETTINGS, secure="plain"):
    aggregator = make_aggregator(secure, 3)
    sites = adata.obs["batch"].cat.categories
    clients = [
        Client(s, adata[adata.obs["batch"] == s].copy(), aggregator.contributor(s), seed=i) for i, s in enumerate(sites)
    ]
    transport = Absent(clients, absences)
    return Server(transport, aggregator, settings), transport, clients


@pytest.mark.parametrize("secure", ["plain", "masked"])
def test_a_site_that_returns_takes_part_again(adata, secure):
    if secure == "masked":
        pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    settings = replace(SETTINGS, n_rounds=3, reference="mean")
    server, transport, clients = with_absences(adata, {"site1": [("model weights", 2)]}, settings, secure)
    rounds = []
    server.run(on_round=lambda round_, weights: rounds.append(server.sites))
    everyone = ["site0", "site1", "site2"]
    assert rounds == [everyone, ["site0", "site2"], everyone]
    assert transport.asked_for("model weights") == [everyone] * 3
    assert sorted({row["round"] for row in clients[1].history}) == [1, 3]
    assert transport.asked_for("cell type means") == [everyone]
    assert all(client.corrected is not None for client in clients)


@pytest.mark.parametrize("reference", ["landmarks", "mean", "dominant"])
def test_a_site_that_missed_the_references_corrects_its_cells(adata, reference):
    absences = {"site1": [("holders of cell types", 1)]}
    server, transport, clients = with_absences(adata, absences, replace(SETTINGS, reference=reference))
    server.run()
    assert transport.asked_for("holders of cell types") == [["site0", "site1", "site2"], ["site0", "site2"]]
    of_references = "sums near landmarks" if reference == "landmarks" else "cell type means"
    assert transport.asked_for(of_references)[0] == ["site0", "site2"], "no sum is over other sites than the first"
    assert server.sites == ["site0", "site1", "site2"]
    assert all(np.isfinite(client.corrected.obsm["X_fedscgen"]).all() for client in clients)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [("landmarks", "sums near landmarks"), ("dominant", "cell type means"), ("mean", "sums before training")],
)
def test_a_site_without_which_a_sum_would_show_its_part_is_asked_once_more(adata, reference, kind):
    everyone = ["site0", "site1", "site2"]
    settings = replace(SETTINGS, reference=reference)
    server, transport, _ = with_absences(adata, {"site1": [(kind, 2 if kind != "cell type means" else 1)]}, settings)
    server.run()
    assert all(asked == everyone for asked in transport.asked_for(kind))
    whole, transport_of_all, _ = with_absences(adata, {}, settings)
    whole.run()
    assert len(transport.asked_for(kind)) == len(transport_of_all.asked_for(kind)) + 1
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(server.weights[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["settings", "genes and cell types"])
def test_a_site_that_misses_the_set_up_stays_out(adata, kind):
    server, transport, clients = with_absences(adata, {"site1": [(kind, 1)]})
    server.run()
    assert transport.asked_for("model weights") == [["site0", "site2"]] * 2
    assert transport.asked_for("final weights and references") == [["site0", "site2"]]
    assert clients[1].corrected is None


@pytest.mark.parametrize("kind", ["mean", "dominant"])
def test_references_without_a_missing_site_are_those_of_the_others_alone(adata, kind):
    """Only site0 is left with type0 once site1 is gone, so its mean isn't opened."""
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs.loc[(adata.obs["batch"] == "site2") & (adata.obs["cell_type"] == "type0"), "cell_type"] = "type1"
    server, transport, clients = with_absences(
        adata, {"site1": [("holders of cell types", 1)]}, replace(SETTINGS, reference=kind)
    )
    with pytest.warns(UserWarning, match=r"cells stay where they are \(.* of 'type0'\)"):
        server.run()
    assert transport.asked_for("cell type means") == [["site0", "site2"]]
    assert server.references.labels == ("type1", "type2", "type3")
    stats = [client.model.get_label_stats() for client in (clients[0], clients[2])]
    labels = [[s.labels.index(label) for label in server.references.labels] for s in stats]
    counts, means = (
        np.stack([getattr(s, name)[0][rows] for s, rows in zip(stats, labels, strict=True)])
        for name in ("counts", "means")
    )  # of two sites: (2, L), (2, L, n_latent)
    expected = (
        np.average(means, axis=0, weights=np.broadcast_to(counts[..., None], means.shape))
        if kind == "mean"
        else means[counts.argmax(axis=0), np.arange(counts.shape[1])]
    )
    np.testing.assert_allclose(server.references.means, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "dominant"])
def test_references_of_two_sites_end_when_one_falls_silent(kind):
    adata = make_adata(n_batches=2)
    absences = {"site1": [("cell type means", 1), ("cell type means", 2)]}
    server, _, clients = with_absences(adata, absences, replace(SETTINGS, reference=kind))
    with pytest.raises(AggregationError, match="no answer to the task 'cell type means' from site1: nothing was op"):
        server.run()
    assert all(client.corrected is None for client in clients)


def test_an_error_that_is_not_for_missing_sites_ends_the_references(adata):
    server, transport, (_, client, _) = with_absences(adata, {}, replace(SETTINGS, reference="mean"))
    answer = client._contributor.contribute
    client._contributor.contribute = lambda term, task: (
        Message("nothing") if task.kind == "cell type means" else answer(term, task)
    )
    with pytest.raises(
        AggregationError,
        match=r"site 'site1': names differ from the first site's: counts, sums, weight\. on one side only",
    ):
        server.run()
    assert len(transport.asked_for("cell type means")) == 1


def test_without_any_site_left_the_federation_ends(adata):
    server, _ = federation(adata, {"site0": 3, "site1": 3, "site2": 3})
    with pytest.raises(SiteError, match=r"0 sites are left \(none\), and min_sites=1: begin again when enough"):
        server.run()


@pytest.mark.parametrize(
    "kind", ["genes and cell types", "settings", "model weights", "cell type means", "sums near landmarks"]
)
def test_with_fewer_than_the_fewest_sites_the_federation_ends(adata, kind):
    reference = "mean" if kind == "cell type means" else "landmarks"
    settings = replace(SETTINGS, min_sites=3, reference=reference)
    server, _, clients = with_absences(adata, {"site1": [(kind, 1), (kind, 2)]}, settings)
    with pytest.raises(SiteError, match=r"2 sites are left \(site0, site2\), and min_sites=3"):
        server.run()
    assert all(client.corrected is None for client in clients)


def test_a_federation_of_too_few_sites_does_not_begin(adata):
    server, transport, _ = with_absences(adata, {}, replace(SETTINGS, min_sites=4))
    with pytest.raises(SiteError, match=r"3 sites are left .*, and min_sites=4"):
        server.run()
    assert not transport.asked


def test_a_federation_needs_at_least_one_site():
    with pytest.raises(ValueError, match="min_sites=0: must be above 0"):
        FederationSettings(min_sites=0)


def test_a_client_without_settings_refuses_to_train(adata):
    _, (client, *_) = federation(adata, {})
    with pytest.raises(PolicyError, match="the coordinator must propose a plan first"):
        client.handle(Message("model weights", {"task": "model weights", "number": 1, "round": 1}).to_bytes())


def test_a_client_refuses_unknown_questions(adata):
    _, (client, *_) = federation(adata, {})
    with pytest.raises(AggregationError, match="nothing of a run has the kind 'your cells, please'"):
        client.handle(Message("your cells, please").to_bytes())
    assert list(client.ledger.to_frame()["sender"]) == ["server"], "nothing has left the site"


class Altered(PlainAggregator):
    """Opens other sums of the weights than it should."""

    def __init__(self, alter):
        self.alter = alter

    def sum(self, ask, sites, task, **options):
        opened = super().sum(ask, sites, task, **options)
        return replace(opened, arrays=self.alter(opened.arrays)) if task.kind == "model weights" else opened


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda arrays: {**arrays, "additional": np.ones(1)}, "names differ from the model's: additional on one side"),
        (
            lambda arrays: {name: array for name, array in arrays.items() if name != "encoder.hidden.0.weight"},
            "names differ from the model's: encoder.hidden.0.weight on one side only",
        ),
        (
            lambda arrays: {name: array for name, array in arrays.items() if not name.endswith("running_mean")},
            r"names differ from the model's: .*\.running_mean",
        ),
        (
            lambda arrays: {**arrays, "encoder.hidden.0.weight": np.ones(2)},
            r"encoder.hidden.0.weight has shape \(2,\), expected",
        ),
        (
            lambda arrays: {**arrays, "encoder.hidden.0.weight": 1e300 * arrays["encoder.hidden.0.weight"]},
            "encoder.hidden.0.weight holds NaN or inf",
        ),
    ],
)
def test_sums_that_do_not_fit_the_weights_are_refused_by_name(adata, alter, message):
    _, clients = federation(adata, {})
    server = Server(InProcessTransport(clients), Altered(alter), SETTINGS)
    with pytest.raises(ValueError, match=f"the average of the sites' weights: {message}"):
        server.run()


def test_a_weight_by_the_name_of_the_loss_is_refused_before_any_site_trains(adata, monkeypatch):
    initial = FedSCGEN.initial_weights
    monkeypatch.setattr(
        FedSCGEN, "initial_weights", lambda *args, **more: {**initial(*args, **more), "validation_loss": np.zeros(1)}
    )
    server, transport, _ = with_absences(adata, {}, replace(SETTINGS, model={**SMALL, "linear_path": False}))
    with pytest.raises(ValueError, match="a weight of the model 'fedscgen' is called 'validation_loss', under which"):
        server.run()
    assert not transport.asked_for("model weights")


class Summing(PlainAggregator):
    """Sums alone."""

    name = "summing"
    selects = False


def test_a_dominant_reference_of_an_aggregator_that_only_sums_is_refused_without_naming_another(adata):
    _, clients = federation(adata, {})
    server = Server(InProcessTransport(clients), Summing(), replace(SETTINGS, reference="dominant"))
    with pytest.raises(ValueError, match="needs an aggregator that selects, and 'summing' doesn't: use ref") as refused:
        server.run()
    assert "MaskedAggregator" not in str(refused.value)
