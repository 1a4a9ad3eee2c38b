"""The coordinator's program and its transport, over Flower's interface to a network of sites of this process."""

import fcntl
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
from flwr.app import Error, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedscgen._types import Message
from fedscgen.federation import SiteError
from fedscgen.flower import _transport
from fedscgen.flower._config import RunConfig
from fedscgen.flower._coordinator import coordinate
from fedscgen.flower._wire import unwrap, wrap
from fedscgen.model import read_model
from fedscgen.secure import AggregationError

NORTH, SOUTH, WEST = 1, 2, 3


class GridOfSites(Grid):
    """Nodes of this process, each of which answers bytes with Flower's records, an error, or nothing.

    ``disturb`` is called before every message reaches its node, with the node and the message, and may answer instead;
    ``alter`` changes what a node answers.
    """

    def __init__(self, nodes):
        self.nodes = dict(nodes)
        self.disturb = lambda node, message: None
        self.alter = lambda node, answer: answer
        self.failures_left = 0
        self._replies = {}
        self._n_sent = 0

    run = None

    def set_run(self, run):
        raise NotImplementedError

    def create_message(self, *arguments, **options):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def get_node_ids(self):
        self._fail_if_overloaded()
        return list(self.nodes)

    def push_messages(self, messages):
        self._fail_if_overloaded()
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids):
        self._fail_if_overloaded()
        return [self._replies.pop(identity) for identity in message_ids if identity in self._replies]

    def _fail_if_overloaded(self):
        if self.failures_left > 0:
            self.failures_left -= 1
            raise ConnectionError("the SuperLink is overloaded")

    def _push(self, message):
        self._n_sent += 1
        identity = message.metadata.__dict__["_message_id"] = str(self._n_sent)
        node, data = message.metadata.dst_node_id, unwrap(message.content)
        answer = self.disturb(node, Message.from_bytes(data))
        if answer is None and node in self.nodes:
            own = Message.from_bytes(self.nodes[node].answer(data))
            answer = wrap(self.alter(node, own).to_buffer())
        if isinstance(answer, RecordDict | Error):
            self._replies[identity] = FlowerMessage(answer, reply_to=message)
        return identity


@pytest.fixture(autouse=True)
def in_a_task(monkeypatch):
    """As in the process of a ServerApp, without which Flower makes no message."""
    for identity in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, identity, 1)


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(_transport, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(_transport, "_LOOK_SECONDS", 0.02)


@pytest.fixture
def grid(make_site):
    return GridOfSites({NORTH: make_site("north"), SOUTH: make_site("south"), WEST: make_site("west")})


@pytest.fixture
def run(grid, tmp_path):
    """Runs the coordinator's program with these entries of its configuration."""

    def run(**options):
        given = {"preset": "paper", "n_rounds": 2, "n_epochs": 1, "answer_timeout": 5.0, "join_timeout": 5.0}
        coordinate(grid, RunConfig(output=str(tmp_path / "coordinator"), **(given | options)))

    return run


@pytest.fixture
def output(tmp_path):
    return tmp_path / "coordinator"


def asked_to_train(message, round_):
    return message.kind == "model weights" and message.meta["round"] == round_


def rounds_of(output, site):
    """Rounds in which a site's weights were in the sum."""
    ledger = pd.read_csv(output / "ledger-training.csv")
    return set(ledger.query("kind == 'masked model weights' and sender == @site")["round"])


def test_a_training_and_then_a_newcomer(grid, run, output, make_site, tmp_path):
    newcomer = grid.nodes.pop(WEST)
    run(n_sites=2)
    assert {path.name for path in output.iterdir()} == {"model", "history.csv", "ledger-training.csv", ".lock"}
    saved = read_model(output / "model")
    assert np.isfinite(saved.references.means).all()
    history = pd.read_csv(output / "history.csv")
    assert list(history["round"]) == [1, 2]
    assert np.isfinite(history["federation_loss"]).all()
    assert grid.nodes[NORTH].finished
    assert not newcomer.finished
    with pytest.raises(FileExistsError, match="choose another output, or move the model away"):
        run(n_sites=2)

    grid.nodes = {WEST: make_site("west", run=2)}
    run(workflow="correction", model=str(output / "model"), n_sites=1, min_sites=1)
    corrected = anndata.read_h5ad(tmp_path / "west" / "run-2" / "corrected.h5ad")
    assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    ledger = pd.read_csv(output / "ledger-correction.csv")
    assert set(ledger["receiver"]) == {"server", "west", f"node {WEST}"}


def test_only_one_run_writes_to_an_output(grid, run, output):
    output.mkdir()
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another run is writing"):
            run()
    assert not any(node.finished for node in grid.nodes.values())
    run()


def test_a_coordinator_that_dies_goes_on_after_the_last_finished_round(grid, run, output, caplog):
    def die_in_round_2(node, message):
        if message.meta.get("round") == 2:
            raise KeyboardInterrupt

    grid.disturb = die_in_round_2
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyboardInterrupt):
        run(n_rounds=3)
    assert {path.name for path in output.iterdir()} == {"checkpoint.fedscgen", "ledger-training.csv", ".lock"}
    grid.disturb = lambda node, message: None
    run(n_rounds=3)
    assert "goes on after round 1" in caplog.text
    assert len(pd.read_csv(output / "history.csv")) == 3
    assert rounds_of(output, "north") == {1, 2, 3}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Error(1, "the app crashed"), "Flower says: the app crashed"),
        (wrap(b"garbage"), "answered with"),
        (RecordDict(), "not a fedscgen message"),
    ],
)
def test_a_site_that_fails_in_a_round_is_left_out_of_it(grid, run, output, caplog, answer, reason):
    grid.disturb = lambda node, message: answer if asked_to_train(message, 1) and node == SOUTH else None
    run()
    assert f"south is left out: {reason}" in caplog.text
    assert rounds_of(output, "south") == {2}
    assert rounds_of(output, "north") == {1, 2}


def test_a_site_that_is_late_is_left_out_of_the_round(grid, run, output, caplog):
    grid.disturb = lambda node, message: "silence" if asked_to_train(message, 1) and node == SOUTH else None
    run(answer_timeout=1.0)
    assert "south is left out: no answer in time" in caplog.text
    assert rounds_of(output, "south") == {2}


def test_a_site_that_is_gone_is_not_waited_for_and_takes_part_when_it_is_back(grid, run, output, caplog):
    south = grid.nodes[SOUTH]

    def disturb(node, message):
        if asked_to_train(message, 1) and node == SOUTH:
            del grid.nodes[SOUTH]
        if message.meta.get("round") == 3:
            grid.nodes[SOUTH] = south

    grid.disturb = disturb
    run(n_rounds=4, answer_timeout=600.0)
    assert "south is left out: disconnected before it answered" in caplog.text
    assert "south is left out: not connected" in caplog.text
    assert rounds_of(output, "south") == {4}
    assert south.finished


def test_a_sum_of_another_shape_ends_the_run_by_name_and_keeps_what_was_finished(grid, run, output):
    def shorten(node, answer):
        if node != SOUTH or answer.kind != "masked model weights" or answer.meta["round"] != 2:
            return answer
        return Message(answer.kind, answer.meta, {"masked": answer.arrays["masked"][:-1]})

    grid.alter = shorten
    with pytest.raises(AggregationError, match=r"site 'south' contributed no vector of .*nothing was opened"):
        run()
    assert {path.name for path in output.iterdir()} == {"checkpoint.fedscgen", "ledger-training.csv", ".lock"}


def test_a_run_with_too_few_sites_left_says_why_each_has_gone(grid, run, output):
    grid.disturb = lambda node, message: Error(1, "no memory") if "round" in message.meta and node != WEST else None
    with pytest.raises((AggregationError, SiteError), match="north: Flower says: no memory; south: Flower says"):
        run()
    assert not (output / "model").exists()


def test_two_sites_of_one_name_are_told_apart(grid, run, make_site, output, caplog):
    grid.nodes[4] = make_site("north", run=2)
    run()
    assert "node 4 is left out: calls itself 'north', as another does: give each site a name of its own" in caplog.text
    assert not grid.nodes[4].finished


def test_sites_that_refuse_or_are_missing_are_named_when_the_time_is_over(grid, run, make_site, output):
    grid.nodes = {NORTH: make_site("north", run=2), SOUTH: make_site("south", run=2, min_sites=4)}
    with pytest.raises(SiteError, match=r"1 of 3 sites have joined within 0.5 s \(north\).*4 or more sites only"):
        run(join_timeout=0.5)


def test_it_begins_with_fewer_sites_than_hoped_for_if_they_are_enough(grid, run, output, caplog):
    del grid.nodes[WEST]
    run(join_timeout=0.5)
    assert "begins with 2 of 3 sites: north, south" in caplog.text
    assert (output / "model").exists()


def test_an_overloaded_superlink_is_asked_again(grid, run, output, caplog):
    def overload(node, message):
        if message.kind == "model weights":
            grid.failures_left = 3

    grid.disturb = overload
    run()
    assert "the SuperLink failed, attempt 3 of 5: the SuperLink is overloaded" in caplog.text
    assert rounds_of(output, "north") == {1, 2}


def test_a_superlink_that_is_gone_ends_the_run_and_keeps_what_was_finished(grid, run, output):
    def lose(node, message):
        if message.meta.get("round") == 2:
            grid.failures_left = 100

    grid.disturb = lose
    with pytest.raises(ConnectionError, match="overloaded"):
        run()
    assert (output / "checkpoint.fedscgen").exists()
    assert not (output / "model").exists()
