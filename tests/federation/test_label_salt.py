"""Cell types that travel as keyed hashes: the same result, and no name on the wire."""

import hashlib
import hmac

import numpy as np
import pytest

from cells import SMALL, leave_out_pandas, make_adata
from fedscgen._types import Message
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation import FederationSettings, InProcessTransport, Server
from fedscgen.secure import PlainAggregator, make_aggregator
from quick import make_client, propose

SALT = "a long secret"


class Recorded(InProcessTransport):
    """Keeps every byte that passes between server and sites."""

    def __init__(self, clients):
        super().__init__(clients)
        self.wire = b""

    def ask(self, messages):
        for message in messages.values():
            self.wire += message.to_bytes()
        for site, answer in super().ask(messages):
            self.wire += answer.to_bytes()
            yield site, answer


def federation(adata, salts, aggregator=None, kind="landmarks", **options):
    aggregator = aggregator or PlainAggregator()
    clients = [
        make_client(
            site,
            adata[adata.obs["batch"] == site].copy(),
            aggregator.contributor(site),
            label_salt=salt,
            seed=i,
            **options,
        )
        for i, (site, salt) in enumerate(salts.items())
    ]
    settings = FederationSettings(n_rounds=1, n_epochs=1, model=SMALL, reference=kind)
    return Server(Recorded(clients), aggregator, settings), clients


def salts(value):
    return dict.fromkeys(("site0", "site1", "site2"), value)


def hashed(name):
    return hmac.new(SALT.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]


@pytest.fixture
def cells(adata):
    """Cells of which site0 alone has one type, another type is rare at site0, and of some the type isn't known."""
    return with_rare_types(adata)


def with_rare_types(adata):
    names = adata.obs["cell_type"].astype(str)
    names[(adata.obs["batch"] == "site0") & (names == "type3")] = "own"
    names.iloc[np.flatnonzero(adata.obs["batch"] == "site0")[:3]] = "type3"
    names.iloc[::10] = "unknown"
    adata.obs["cell_type"] = names.astype("category")
    return adata


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
@pytest.mark.parametrize("kind", ["mean", "dominant"])
def test_hashed_types_give_the_same_result(cells, kind):
    results = []
    for salt in (None, SALT):
        server, clients = federation(cells, salts(salt), kind=kind, unlabeled_category="unknown", shrink=True)
        server.run()
        results.append((server, clients))
    (plain, named), (hidden, masked) = results
    assert hidden.references.labels == tuple(sorted(map(hashed, plain.references.labels)))
    assert plain.references.labels == ("type0", "type1", "type2", "type3")
    for before, after in zip(named, masked, strict=True):
        np.testing.assert_array_equal(after.corrected.obsm["X_fedscgen"], before.corrected.obsm["X_fedscgen"])
        assert (after.corrected.obs["fedscgen_cell_type"] == before.corrected.obs["fedscgen_cell_type"]).all()
        own, expected = after.model.references, before.model.references
        order = [own.labels.index(label) for label in expected.labels]
        np.testing.assert_array_equal(own.means[order], expected.means)


def test_hashed_types_give_the_same_landmarks():
    """Also where a type has several, which begin at random."""
    cells, results = with_rare_types(make_adata(n_cells=450)), []
    for salt in (None, SALT):
        server, clients = federation(cells, salts(salt), unlabeled_category="unknown")
        server.run()
        results.append((server.references, clients))
    (plain, named), (hidden, masked) = results
    assert hidden.labels == tuple(sorted(map(hashed, plain.labels)))
    for before, after in zip(named, masked, strict=True):
        np.testing.assert_allclose(after.corrected.obsm["X_fedscgen"], before.corrected.obsm["X_fedscgen"], atol=1e-4)
        assert list(after.corrected.obs["fedscgen_cell_type"]) == list(before.corrected.obs["fedscgen_cell_type"])
        assert set(after.model.references.labels) == set(before.model.references.labels)


def test_hashed_types_of_equally_many_cells_give_the_same_landmarks():
    cells = make_adata(n_cells=900)
    groups = cells.obs.groupby(["batch", "cell_type"], observed=True, sort=False)
    cells = cells[[name for _, group in groups for name in group.index[:48]]].copy()
    assert set(groups.size().clip(upper=48)) == {48}
    latent = []
    for salt in (None, SALT):
        server, clients = federation(cells, salts(salt))
        server.run()
        latent.append(np.concatenate([client.corrected.obsm["X_fedscgen"] for client in clients]))
    np.testing.assert_allclose(latent[1], latent[0], atol=1e-4)


def test_sites_see_their_own_names_of_types_that_travel_as_hashes(cells):
    server, clients = federation(cells, salts(SALT), unlabeled_category="unknown")
    server.run()
    assert set(server.references.labels) == set(map(hashed, ["type0", "type1", "type2", "type3"]))
    for client in clients:
        assert set(client.model.references.labels) == {"type0", "type1", "type2", "type3"}
        predicted = client.corrected.obs["fedscgen_cell_type"]
        assert set(predicted) <= {"type0", "type1", "type2", "type3", "own", "unknown"}
        assert (predicted != "unknown").mean() > 0.95


def test_a_site_without_labels_that_has_the_salt_is_told_hashes(cells):
    """It knows none of the names; who does can compare."""
    aggregator = PlainAggregator()
    clients = [
        make_client(site, cells[cells.obs["batch"] == site].copy(), aggregator.contributor(site), label_salt=SALT,
                    **({"labels_key": None} if site == "site2" else {}))
        for site in salts(SALT)
    ]  # fmt: skip
    message = (
        r"^site 'site2': obs\['fedscgen_cell_type'\] has \d cell types by their hash .* Ask another site for its names"
    )
    with pytest.warns(UserWarning, match=message) as warned:
        Server(InProcessTransport(clients), aggregator, FederationSettings(n_rounds=0, model=SMALL)).run()
    assert len(leave_out_pandas(warned)) == 1
    told = set(clients[2].corrected.obs["fedscgen_cell_type"]) - {"unknown"}
    assert told
    assert told <= set(map(hashed, ["type0", "type1", "type2", "type3", "unknown"]))


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
def test_hashed_types_give_the_same_result_through_masks(cells):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    latent = []
    for salt in (None, SALT):
        masked = make_aggregator("masked", 3)
        server, clients = federation(cells, salts(salt), masked, kind="mean", unlabeled_category="unknown")
        server.run()
        latent.append(np.concatenate([client.corrected.obsm["X_fedscgen"] for client in clients]))
    np.testing.assert_allclose(latent[1], latent[0], atol=1e-6)


def test_no_name_of_a_type_crosses_the_wire(cells):
    for salt, crosses in ((None, True), (SALT, False)):
        server, _ = federation(cells, salts(salt))
        server.run()
        for name in ("type0", "type1", "type2"):
            assert (f'"{name}"'.encode() in server._transport.wire) == crosses
            assert (hashed(name).encode() in server._transport.wire) != crosses


def test_the_order_of_hashed_types_tells_nothing_of_their_names(cells):
    _, (client, *_) = federation(cells, salts(SALT), unlabeled_category="unknown")
    answer = Message.from_bytes(client.handle(propose().to_message().to_bytes()))
    assert answer.meta["hashed"] is True
    assert answer.meta["labels"] == sorted(map(hashed, ["own", "type0", "type1", "type2"]))


def test_a_type_that_a_site_does_not_know_stays_a_hash(adata):
    adata = adata[~((adata.obs["batch"] == "site0") & (adata.obs["cell_type"] == "type2"))].copy()
    server, (client, *_) = federation(adata, salts(SALT))
    server.run()
    assert set(client.model.references.labels) == {"type0", "type1", hashed("type2"), "type3"}


def test_some_sites_cannot_hash_while_others_do_not(adata):
    server, _ = federation(adata, {"site0": SALT, "site1": None, "site2": SALT})
    with pytest.raises(
        ValueError,
        match="sites site0, site2 hash their cell types and sites site1 don't: give all the same label_salt, or none",
    ):
        server.run()


def test_sites_with_different_salts_are_told_what_may_be_wrong(adata):
    server, _ = federation(adata, {"site0": "one", "site1": "two", "site2": "three"})
    with pytest.raises(NoSharedLabelError, match="all sites have the same label_salt, lower min_cells"):
        server.run()


def test_without_hashes_nobody_is_sent_looking_for_a_salt(adata):
    adata.obs["cell_type"] = [f"{b} {t}" for b, t in zip(adata.obs["batch"], adata.obs["cell_type"], strict=True)]
    server, _ = federation(adata, salts(None))
    with pytest.raises(NoSharedLabelError) as raised:
        server.run()
    assert "label_salt" not in str(raised.value)


def test_an_empty_salt_is_refused():
    with pytest.raises(ValueError, match="label_salt='': anyone could compute these hashes"):
        federation(make_adata(), salts(""))
