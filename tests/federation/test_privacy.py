"""What leaves a site: the ledger says it, and the bytes agree."""

import re

import numpy as np
import pytest

from cells import SMALL, make_adata
from fedscgen import Message
from fedscgen.federation import Client, FederationSettings, InProcessTransport, PrivacyLedger, Server
from fedscgen.secure import PlainAggregator, Protection
from quick import QUICK, simulate


class Recorded(InProcessTransport):
    """Keeps every byte that passes between server and sites."""

    def __init__(self, clients):
        super().__init__(clients)
        self.crossed = []
        for client in clients:
            client.handle = self._recorded(client.site, client.handle)

    def _recorded(self, site, handle):
        def recorded(data):
            answer = handle(data)
            self.crossed += [("server", site, bytes(data)), (site, "server", bytes(answer))]
            return answer

        return recorded


@pytest.fixture(scope="module")
def federation():
    """A whole run, with what it left behind."""
    adata = make_adata(n_types=5)
    rare = adata.obs.index[(adata.obs["batch"] == "site0") & (adata.obs["cell_type"] == "type4")][:2]
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("secret disease")
    adata.obs.loc[rare, "cell_type"] = "secret disease"
    aggregator = PlainAggregator()
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}
    clients = [Client(site, part, aggregator.contributor(site)) for site, part in parts.items()]
    transport = Recorded(clients)
    Server(transport, aggregator, FederationSettings(n_rounds=2, n_epochs=1, model=SMALL)).run()
    return parts, clients, transport


def test_the_ledger_lists_every_message_with_its_bytes(federation):
    _, clients, transport = federation
    for client in clients:
        ledger = client.ledger.to_frame()
        crossed = [(s, r, len(d)) for s, r, d in transport.crossed if client.site in (s, r)]
        assert list(ledger[["sender", "receiver", "bytes"]].itertuples(index=False, name=None)) == crossed


def test_no_cell_name_or_expression_crosses_the_wire(federation):
    parts, _, transport = federation
    wire = b"".join(data for _, _, data in transport.crossed)
    for part in parts.values():
        for name in part.obs_names:
            assert f'"{name}"'.encode() not in wire
        for row in part.X.toarray():
            assert row.tobytes() not in wire
            assert row.astype(np.float64).tobytes() not in wire
    assert b'"gene7"' in wire, "the search finds what does cross"


def test_rare_types_are_not_even_named(federation):
    _, _, transport = federation
    wire = b"".join(data for _, _, data in transport.crossed)
    assert b"secret disease" not in wire
    assert b"type1" in wire


@pytest.mark.parametrize("kind", ["dominant", "mean"])
def test_means_of_few_cells_stay_at_their_site(kind):
    adata = make_adata()
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    of_site = np.flatnonzero((adata.obs["batch"] == "site0") & (adata.obs["cell_type"] == "type2"))
    adata.obs.iloc[of_site[3:], adata.obs.columns.get_loc("cell_type")] = "type1"
    aggregator = PlainAggregator()
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in ("site0", "site1", "site2")}
    transport = Recorded([Client(site, part, aggregator.contributor(site)) for site, part in parts.items()])
    Server(transport, aggregator, FederationSettings(n_rounds=1, n_epochs=1, model=SMALL, reference=kind)).run()
    answers = [Message.from_bytes(data) for sender, _, data in transport.crossed if sender == "site0"]
    (answer,) = (answer for answer in answers if answer.kind == "cell type means")
    counts, values = (
        answer.arrays[name] for name in (("keys", "values") if kind == "dominant" else ("counts", "sums"))
    )
    assert list(counts > 0) == [True, True, False, True], "types 0 to 3, of which type 2 is rare"
    assert list(values.any(axis=1)) == [True, True, False, True]


def test_no_integer_counter_crosses_the_wire(federation):
    _, _, transport = federation
    assert not any(b"num_batches_tracked" in data for _, _, data in transport.crossed)


@pytest.mark.parametrize(("reference", "kind"), [("landmarks", "sums near landmarks"), ("mean", "cell type means")])
def test_the_result_has_the_ledger_of_all_sites(adata, reference, kind):
    ledger = simulate(adata, reference=reference, **QUICK).ledger
    assert list(ledger.columns) == ["round", "sender", "receiver", "kind", "shape", "bytes", "protection"]
    assert set(ledger["sender"]) == set(ledger["receiver"]) == {"server", "site0", "site1", "site2"}
    left = ledger[ledger["sender"] != "server"]
    assert list(dict.fromkeys(left["kind"])) == [
        "genes and cell types",
        "settings",
        "sums before training",
        "model weights",
        "holders of cell types",
        kind,
        "final weights and references",
    ]
    assert (left["protection"] == "none").all()
    assert set(ledger["round"].dropna()) == {1, 2}


@pytest.mark.parametrize("word", ["magic", "", None, ["masked"], 7])
def test_a_ledger_refuses_an_unknown_word_and_lists_the_known_ones(word):
    ledger = PrivacyLedger()
    choices = re.escape(
        f"unknown protection {word!r}: choose one of {', '.join(repr(known.value) for known in Protection)}"
    )
    with pytest.raises(ValueError, match=choices):
        ledger.record("site", "server", Message("task", {"protection": word}), b"7 bytes")
    assert ledger.to_frame().empty
