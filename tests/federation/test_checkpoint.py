"""A federation that is interrupted, and goes on."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from cells import SMALL
from fedscgen._types import Message
from fedscgen.aggregation import ServerOptimizer
from fedscgen.federation import Client, FederationSettings, InProcessTransport, Server
from fedscgen.federation._checkpoint import Checkpoint, settings_as_json
from fedscgen.model import CheckpointError
from fedscgen.secure import PlainAggregator

SETTINGS = FederationSettings(n_rounds=4, n_epochs=1, model=SMALL)


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


def federation(adata, settings=SETTINGS, last=None):
    aggregator = PlainAggregator()
    sites = sorted(set(adata.obs["batch"]))
    clients = [Client(s, adata[adata.obs["batch"] == s].copy(), aggregator.contributor(s)) for s in sites]
    transport = Recorded(clients, last)
    return Server(transport, aggregator, settings), transport, clients


def run_until(last, adata, path, settings=SETTINGS):
    """A run that is interrupted after a round; its server."""

    def interrupt(round_, weights):
        if round_ == last:
            raise Interrupted

    server, *_ = federation(adata, settings)
    with pytest.raises(Interrupted):
        server.run(on_round=interrupt, checkpoint=path)
    return server


def assert_same(weights, expected):
    assert list(weights) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.fedscgen"


@pytest.mark.parametrize("optimizer", ["average", "momentum", "adam"])
def test_an_interrupted_run_goes_on_after_its_last_finished_round(adata, path, optimizer):
    settings = replace(SETTINGS, server_optimizer=optimizer)
    first = run_until(2, adata, path, settings)
    server, transport, clients = federation(adata, settings)
    rounds = []
    server.run(on_round=lambda round_, weights: rounds.append(round_), checkpoint=path)
    assert rounds == [3, 4]
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [3, 4]
    assert_same(transport.of_kind("model weights")[0].arrays, first.weights)
    assert not transport.of_kind("sums before training"), "training doesn't begin anew"
    assert len(server.losses) == 4
    assert server.losses[:2] == first.losses
    assert all(np.isfinite(array).all() for array in server.weights.values())
    assert all(np.isfinite(client.corrected.obsm["X_fedscgen"]).all() for client in clients)


def test_a_run_that_is_interrupted_twice_goes_on_twice(adata, path):
    run_until(1, adata, path)
    run_until(3, adata, path)
    server, transport, _ = federation(adata)
    server.run(checkpoint=path)
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [4]
    assert len(server.losses) == 4


def test_a_run_with_checkpoints_equals_one_without(adata, path):
    server, *_ = federation(adata)
    seen = []
    server.run(on_round=lambda round_, weights: seen.append(Checkpoint.read(path)), checkpoint=path)
    assert [checkpoint.round for checkpoint in seen] == [1, 2, 3, 4]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    without, *_ = federation(adata)
    without.run()
    assert_same(server.weights, without.weights)


@pytest.mark.parametrize("kind", ["landmarks", "dominant"])
def test_nothing_is_opened_again_when_the_correction_was_interrupted(adata, path, kind):
    """References of other sites than before would differ by a site's own sums."""
    settings = replace(SETTINGS, reference=kind)
    server, *_ = federation(adata, settings, last="final weights and references")
    with pytest.raises(Interrupted):
        server.run(checkpoint=path)
    again, transport, clients = federation(adata, settings)
    again.run(checkpoint=path)
    assert [m.kind for m in transport.asked] == ["genes and cell types", "settings", "final weights and references"]
    assert_same(again.weights, server.weights)
    assert again.references.kind == kind
    assert again.references.to_json() == server.references.to_json()
    assert all(client.corrected is not None for client in clients)


def test_landmarks_are_sought_anew_when_the_search_was_interrupted(adata, path):
    server, transport, _ = federation(adata, last="sums near landmarks")
    with pytest.raises(Interrupted):
        server.run(checkpoint=path)
    assert Checkpoint.read(path).references is None
    again, transport, clients = federation(adata)
    again.run(checkpoint=path)
    assert not transport.of_kind("model weights")
    assert [message.meta["step"] for message in transport.of_kind("sums near landmarks")][:2] == ["labels", "holders"]
    whole, *_ = federation(adata)
    whole.run()
    np.testing.assert_allclose(again.references.positions, whole.references.positions, atol=1e-6)
    assert all(client.corrected is not None for client in clients)


def test_early_stopping_goes_back_to_the_best_round_of_before_the_interruption(adata, path):
    settings = replace(SETTINGS, n_rounds=30, lr=0.2, early_stopping_patience=2)
    whole, transport, _ = federation(adata, settings)
    whole.run()
    n_rounds = len(transport.of_kind("model weights"))
    assert 2 < n_rounds < 30
    run_until(n_rounds, adata, path, settings)
    server, transport, _ = federation(adata, settings)
    server.run(checkpoint=path)
    assert not transport.of_kind("model weights"), "it had stopped"
    assert_same(server.weights, whole.weights)
    assert server.losses == whole.losses


def test_best_weights_are_kept_for_early_stopping_only(adata, path):
    run_until(2, adata, path)
    assert Checkpoint.read(path).best == (0, {})
    path.unlink()
    server = run_until(2, adata, path, replace(SETTINGS, early_stopping_patience=2))
    round_, weights = Checkpoint.read(path).best
    assert round_ == np.argmin(server.losses) + 1
    assert weights.keys() == server.weights.keys()


@pytest.mark.parametrize("kind", ["average", "momentum", "adam"])
def test_a_server_optimizer_goes_on_as_if_it_had_not_been_interrupted(path, kind):
    rng = np.random.default_rng(0)
    start, *averages = [{"w": rng.normal(size=(3, 2)).astype(np.float32)} for _ in range(4)]
    optimizer, weights = ServerOptimizer(kind), start
    for average in averages[:2]:
        weights = optimizer.step(weights, average)
    Checkpoint({}, 2, [], [], (0, {}), [], weights, optimizer.state).write(path)
    saved, resumed = Checkpoint.read(path), ServerOptimizer(kind)
    resumed.state = saved.optimizer
    assert_same(resumed.step(saved.weights, averages[2]), optimizer.step(weights, averages[2]))


def test_more_rounds_and_fewer_sites_may_be_asked_for(adata, path, caplog):
    run_until(2, adata, path)
    fewer = adata[adata.obs["batch"] != "site1"].copy()
    server, transport, _ = federation(fewer, replace(SETTINGS, n_rounds=5, min_sites=2))
    server.run(checkpoint=path)
    assert [message.meta["round"] for message in transport.of_kind("model weights")] == [3, 4, 5]
    assert "goes on with other sites: they were site0, site1, site2 and are site0, site2" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.1}, r"lr was 0\.0003 and is 0\.1: choose another output, or delete the file"),
        ({"seed": 7, "n_epochs": 2}, "n_epochs was 1 and is 2; seed was 0 and is 7"),
        ({"model": {**SMALL, "n_latent": 5}}, r"model was .*'n_latent': 4} and is .*'n_latent': 5}"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(adata, path, change, message):
    run_until(1, adata, path)
    kept = path.read_bytes()
    server, transport, _ = federation(adata, replace(SETTINGS, **change))
    with pytest.raises(CheckpointError, match=rf"checkpoint\.fedscgen is of another federation: {message}"):
        server.run(checkpoint=path)
    assert not transport.of_kind("model weights")
    assert path.read_bytes() == kept


def test_settings_that_json_has_no_type_for_are_still_the_same(path):
    settings = FederationSettings(model=MappingProxyType({"n_hidden": np.int64(16)}), seed=np.int64(3))
    Checkpoint(settings_as_json(settings), 1, ["a"], [], (0, {}), ["site0"], {}, (1, {}, {})).write(path)
    Checkpoint.read(path).check(path, settings, ["a"], ["site0"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (slice(2, None), r"there were 30 genes and are 28 \(gone: gene0, gene1; new: none\): choose"),
        (slice(None, None, -1), r"there were 30 genes and are 30 \(gone: none; new: none\), in another order: choose"),
    ],
)
def test_a_checkpoint_of_other_genes_is_refused(adata, path, columns, message):
    run_until(1, adata, path)
    server, *_ = federation(adata[:, columns].copy())
    with pytest.raises(CheckpointError, match=message):
        server.run(checkpoint=path)


def damaged(content):
    return [
        b"",
        b"PK\x03\x04 something else",
        content[:10],
        content[: len(content) // 2],
        content[:-1],
        content + b"\0",
        Message("model weights", {}, {"w": np.zeros(3)}).to_bytes(),
        Message("checkpoint", {"format": 2}).to_bytes(),
        Message("checkpoint", {"format": 1, "round": 1}).to_bytes(),
        Message("checkpoint").to_bytes(),
    ]


def test_a_damaged_or_foreign_file_is_refused_before_any_site_is_asked(adata, path):
    run_until(1, adata, path)
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        server, transport, _ = federation(adata)
        with pytest.raises(CheckpointError, match=r"damaged or foreign checkpoint \(.+\): .* or delete the file"):
            server.run(checkpoint=path)
        assert not transport.asked
        assert path.read_bytes() == content


def test_a_write_that_was_cut_off_leaves_the_last_checkpoint(adata, path):
    first = run_until(2, adata, path)
    path.with_name(f".{path.name}.4711.partial").write_bytes(path.read_bytes()[:100])
    server, transport, _ = federation(adata)
    server.run(checkpoint=path)
    assert_same(transport.of_kind("model weights")[0].arrays, first.weights)


def test_a_write_that_fails_leaves_the_last_checkpoint(path):
    checkpoint = Checkpoint({}, 1, ["a"], [0.5], (0, {}), ["site0"], {"w": np.ones(2)}, (1, {}, {}))
    checkpoint.write(path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="dtype complex128, which may not cross the wire"):
        replace(checkpoint, weights={"w": np.ones(2, dtype=complex)}).write(path)
    assert path.read_bytes() == kept
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_holds_nothing_of_a_single_site(adata, path):
    """Names of sites and the federation's own state, and that's all."""
    server = run_until(1, adata, path)
    message = Message.from_bytes(path.read_bytes())
    assert set(message.meta) == {
        "format", "settings", "round", "genes", "losses", "best_round", "n_steps", "sites", "references"
    }  # fmt: skip
    assert set(message.arrays) == {f"weights: {name}" for name in server.weights}
