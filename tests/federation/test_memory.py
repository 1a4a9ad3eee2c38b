"""A federation that is interrupted, at the coordinator or at a site, and goes on from what is on disk."""

from dataclasses import replace

import numpy as np
import pytest

from cells import SMALL
from fedscgen._types import Message
from fedscgen.federation import Client, FederationSettings, InProcessTransport, Server, SiteError
from fedscgen.federation._memory import RunMemory
from fedscgen.model import CheckpointError
from fedscgen.secure import make_aggregator

SETTINGS = FederationSettings(n_rounds=4, n_epochs=1, model=SMALL, seed=0)
AGREED = ["genes and cell types", "settings"]
LAST = "final weights and references"


class Interrupted(Exception):
    """Ends a run from outside."""


class Recorded(InProcessTransport):
    """Keeps what the sites are asked, and ends the run at a kind of question."""

    def __init__(self, clients, last):
        super().__init__(clients)
        self.asked = []
        self.last = last

    def ask(self, messages):
        self.asked.append(next(iter(messages.values())))
        if self.asked[-1].kind == self.last:
            raise Interrupted
        return super().ask(messages)

    def of_kind(self, kind):
        return [message for message in self.asked if message.kind == kind]


@pytest.fixture
def federation(adata, tmp_path):
    """Makes a server over sites that have their own disks; a second one is what is left after all have died."""

    def make(settings=SETTINGS, last=None, secure="plain", without=()):
        aggregator = make_aggregator(secure, 3)
        sites = [site for site in sorted(set(adata.obs["batch"])) if site not in without]
        clients = [
            Client(
                site,
                adata[adata.obs["batch"] == site].copy(),
                aggregator.contributor(site),
                seed=int(site[-1]),
                memory=tmp_path / site,
            )
            for site in sites
        ]
        transport = Recorded(clients, last)
        return Server(transport, aggregator, settings), transport, clients

    return make


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


def run_until(last, federation, path, settings=SETTINGS, **options):
    """A run that is interrupted after a round; its server."""

    def interrupt(round_, weights):
        if round_ == last:
            raise Interrupted

    server, *_ = federation(settings, **options)
    with pytest.raises(Interrupted):
        server.run(on_round=interrupt, memory=path)
    return server


def assert_same(weights, expected):
    assert list(weights) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


@pytest.mark.parametrize(("optimizer", "secure"), [("average", "masked"), ("momentum", "plain"), ("adam", "plain")])
def test_an_interrupted_run_goes_on_after_its_last_opened_sum(federation, path, optimizer, secure):
    if secure == "masked":
        pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    settings = replace(SETTINGS, server_optimizer=optimizer)
    first = run_until(2, federation, path, settings, secure=secure)
    server, transport, clients = federation(settings, secure=secure)
    rounds = []
    server.run(on_round=lambda round_, weights: rounds.append(round_), memory=path)
    assert rounds == [3, 4]
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [3, 4]
    assert [message.kind for message in transport.asked[:2]] == [
        AGREED[0],
        ("model weights", "mask public keys")[secure == "masked"],
    ]
    assert len(server.losses) == 4
    assert server.losses[:2] == first.losses
    assert all(np.isfinite(client.corrected.obsm["X_fedscgen"]).all() for client in clients)


def test_a_run_that_is_interrupted_twice_goes_on_twice(federation, path):
    run_until(1, federation, path)
    run_until(3, federation, path)
    server, transport, _ = federation()
    server.run(memory=path)
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [4]
    assert len(server.losses) == 4


def test_the_group_key_is_passed_on_though_the_coordinator_dies_before_it_was(federation, path):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    server, transport, clients = federation(secure="masked", last="sums before training")
    with pytest.raises(Interrupted):
        server.run(memory=path)
    assert [message.kind for message in transport.asked] == [*AGREED, "sums before training"]
    Server(InProcessTransport(clients), make_aggregator("masked", 3), SETTINGS).run(memory=path)
    assert all(client.corrected is not None for client in clients)


def test_a_run_with_a_memory_equals_one_without(adata, federation, path):
    server, *_ = federation()
    server.run(memory=path)
    aggregator = make_aggregator("plain", 3)
    parts = {site: adata[adata.obs["batch"] == site].copy() for site in sorted(set(adata.obs["batch"]))}
    clients = [Client(site, part, aggregator.contributor(site), seed=i) for i, (site, part) in enumerate(parts.items())]
    without = Server(InProcessTransport(clients), aggregator, SETTINGS)
    without.run()
    assert_same(server.weights, without.weights)


@pytest.mark.parametrize("kind", ["landmarks", "dominant"])
def test_nothing_is_opened_again_when_the_correction_was_interrupted(federation, path, kind):
    settings = replace(SETTINGS, reference=kind)
    server, *_ = federation(settings, last=LAST)
    with pytest.raises(Interrupted):
        server.run(memory=path)
    again, transport, clients = federation(settings)
    again.run(memory=path)
    assert [message.kind for message in transport.asked] == [AGREED[0], LAST]
    assert_same(again.weights, server.weights)
    assert again.references.to_json() == server.references.to_json()
    assert all(client.corrected is not None for client in clients)


def test_landmarks_are_sought_on_when_the_search_was_interrupted(federation, path, adata):
    server, *_ = federation()
    steps = []
    ask = server._transport.ask

    def interrupt(messages):
        message = next(iter(messages.values()))
        steps.append(message.meta.get("step"))
        if steps.count("holders") == 2:
            raise Interrupted
        return ask(messages)

    server._transport.ask = interrupt
    with pytest.raises(Interrupted):
        server.run(memory=path)
    again, transport, clients = federation()
    again.run(memory=path)
    asked = [message.meta["step"] for message in transport.of_kind("sums near landmarks")]
    assert asked == [*["holders", "means"] * 2, "calibration"]
    assert all(client.corrected is not None for client in clients)


def test_early_stopping_goes_back_to_the_best_round_of_before_the_interruption(federation, path):
    settings = replace(SETTINGS, n_rounds=30, lr=0.2, early_stopping_patience=2)
    server, transport, _ = federation(settings, last="validation loss")
    with pytest.raises(Interrupted):
        server.run(memory=path)
    n_rounds = len(transport.of_kind("model weights"))
    assert 2 < n_rounds < 30
    again, transport, _ = federation(settings)
    again.run(memory=path)
    assert not transport.of_kind("model weights"), "it had stopped"
    assert len(again.losses) == n_rounds + 1
    assert again.losses[:n_rounds] == server.losses


def test_a_run_goes_on_without_a_site_if_so_few_are_enough(federation, path):
    settings = replace(SETTINGS, min_sites=2)
    run_until(2, federation, path, settings)
    server, transport, _ = federation(settings, without=("site1",))
    server.run(memory=path)
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [3, 4]
    assert not transport.of_kind("sums before training"), "components are opened over one set of sites or not at all"


def test_a_run_does_not_go_on_without_a_site_that_it_needs(federation, path):
    run_until(2, federation, path)
    server, transport, _ = federation(without=("site1",))
    with pytest.raises(SiteError, match=r"2 sites are left \(site0, site2\), and min_sites=3"):
        server.run(memory=path)
    assert not transport.asked


def test_a_site_that_has_forgotten_the_run_is_not_asked_to_go_on(federation, path, tmp_path):
    run_until(2, federation, path)
    for file in (tmp_path / "site1").rglob("*"):
        file.unlink() if file.is_file() else None
    server, transport, _ = federation()
    with pytest.raises(SiteError, match="has kept nothing of run"):
        server.run(memory=path)
    assert not transport.of_kind("model weights")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.1}, r"lr was 0\.0003 and is 0\.1: choose another output, or delete it"),
        ({"seed": 7, "n_epochs": 2}, "n_epochs was 1 and is 2; seed was 0 and is 7"),
        ({"n_rounds": 9}, "n_rounds was 4 and is 9"),
        ({"model": {**SMALL, "n_latent": 5}}, r"model was .*'n_latent': 4} and is .*'n_latent': 5}"),
    ],
)
def test_a_run_of_other_settings_is_not_gone_on_with(federation, path, change, message):
    run_until(1, federation, path)
    kept = {file.name: file.read_bytes() for file in path.iterdir()}
    server, transport, _ = federation(replace(SETTINGS, **change))
    with pytest.raises(CheckpointError, match=rf"run is of another federation: {message}"):
        server.run(memory=path)
    assert not transport.asked
    assert {file.name: file.read_bytes() for file in path.iterdir()} == kept


def damaged(content):
    return [b"", b"PK\x03\x04 something else", content[:10], content[: len(content) // 2], content + b"\0"]


@pytest.mark.parametrize("name", ["plan", "set-up", "sum-00001", "sum-00003"])
def test_a_damaged_file_is_refused_before_any_site_is_asked(federation, path, name):
    run_until(1, federation, path)
    for content in damaged((path / name).read_bytes()):
        (path / name).write_bytes(content)
        server, transport, _ = federation()
        with pytest.raises(
            CheckpointError, match=rf"{name} is a damaged or foreign checkpoint \(.+\): .* or delete it"
        ):
            server.run(memory=path)
        assert not transport.asked
        assert (path / name).read_bytes() == content


def test_a_sum_that_is_missing_is_named(federation, path):
    run_until(1, federation, path)
    (path / "sum-00002").unlink()
    server, transport, _ = federation()
    with pytest.raises(CheckpointError, match="lacks the sum of number 2"):
        server.run(memory=path)
    assert not transport.asked


def test_a_write_that_was_cut_off_leaves_the_sums_before_it(federation, path):
    run_until(2, federation, path)
    whole = (path / "sum-00004").read_bytes()
    (path / ".sum-00005.4711.partial").write_bytes(whole[:100])
    server, transport, _ = federation()
    server.run(memory=path)
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [3, 4]


def test_a_memory_holds_nothing_of_a_single_site_but_names(federation, path):
    """What is kept of a run at the coordinator was all published."""
    run_until(1, federation, path)
    memory = RunMemory(path)
    sums = list(memory.sums())
    assert {message.kind for message in sums} == {"opened sum"}
    assert all(message.meta["n_sites"] == 3 for message in sums)
    assert {file.name.split("-")[0] for file in path.iterdir()} == {"plan", "set", "sum"}
    assert Message.from_bytes((path / "set-up").read_bytes()).arrays == {}


class Restarting(InProcessTransport):
    """Replaces a site's client by a new one that knows no more than is on its disk, before the second round."""

    def __init__(self, clients, successor):
        super().__init__(clients)
        self.successor = successor

    def ask(self, messages):
        site = self.successor.site
        if any(message.kind == "model weights" and message.meta["round"] == 2 for message in messages.values()):
            self.successor.resume(self._clients[site].run)
            self._clients[site] = self.successor
        yield from super().ask(messages)


def test_a_site_that_was_restarted_takes_part_again(federation):
    settings = replace(SETTINGS, n_rounds=2)
    server, _, (client, *others) = federation(settings)
    _, _, (successor, *_) = federation(settings)
    server._transport = Restarting([client, *others], successor)
    server.run()
    assert client.corrected is None
    assert {row["round"] for row in successor.history} == {2}
    assert np.isfinite(successor.corrected.obsm["X_fedscgen"]).all()
    assert successor.model.genes == server.genes
    assert successor.model.n_training_cells() == client.model.n_training_cells()
    kinds = list(successor.ledger.to_frame()["kind"])
    assert kinds[:2] == ["model weights"] * 2, "resuming is on no ledger, as nothing left the site"


def test_the_split_of_cells_outlives_a_restart(federation):
    """Else two runs of the same cells would show by difference which of them were trained on."""
    server, _, (client, *_) = federation(replace(SETTINGS, n_rounds=1))
    server.run()
    _, _, (successor, *_) = federation(replace(SETTINGS, n_rounds=1))
    successor.resume(client.run)
    assert client.model._drawn_split is not None
    for before, after in zip(client.model._drawn_split[1], successor.model._drawn_split[1], strict=True):
        np.testing.assert_array_equal(before, after)
