"""Flower's way to the sites, over Flower's interface to a network of sites of this process."""

import pandas as pd
import pytest
from flwr.app import Error, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedscgen._types import Message
from fedscgen.deployment import coordinate
from fedscgen.federation import SiteError
from fedscgen.flower import _carrier
from fedscgen.flower._carrier import GridCarrier
from fedscgen.flower._wire import unwrap, wrap
from fedscgen.model import read_model
from fedscgen.secure import AggregationError
from site_programs import round_asked_for

NORTH, SOUTH, WEST = 1, 2, 3


class GridOfSites(Grid):
    """Nodes of this process, each of which answers bytes with Flower's records, an error, or nothing.

    ``disturb`` is called before every message reaches its node, with the node and the message, and may answer instead.
    """

    def __init__(self, nodes):
        self.nodes = dict(nodes)
        self.disturb = lambda node, message: None
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
            answer = wrap(self.nodes[node].answer(data))
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
    monkeypatch.setattr(_carrier, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(_carrier, "_LOOK_SECONDS", 0.02)


@pytest.fixture
def grid(make_site):
    return GridOfSites({NORTH: make_site("north"), SOUTH: make_site("south"), WEST: make_site("west")})


@pytest.fixture
def run(grid, configure):
    """Runs the coordinator's program with these entries of its configuration."""
    return lambda **options: coordinate(GridCarrier(grid), configure(**options))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "coordinator"


def rounds_of(output, site):
    """Rounds in which a site's weights were in the sum."""
    ledger = pd.read_csv(output / "ledger-training.csv")
    return set(ledger.query("kind == 'masked model weights' and sender == @site")["round"])


def test_a_training_and_then_a_newcomer(grid, run, output, make_site):
    newcomer = grid.nodes.pop(WEST)
    run(n_sites=2)
    assert read_model(output / "model").references is not None
    assert grid.nodes[NORTH].finished
    assert not newcomer.finished
    grid.nodes = {WEST: make_site("west", run=2)}
    run(workflow="correction", trained_model=str(output / "model"), n_sites=1, min_sites=1)
    assert grid.nodes[WEST].finished
    ledger = pd.read_csv(output / "ledger-correction.csv")
    assert set(ledger["receiver"]) == {"server", "west", f"node {WEST}"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Error(1, "the app crashed"), "Flower says: the app crashed"),
        (wrap(b"garbage"), "answered with"),
        (RecordDict(), "not a fedscgen message"),
    ],
)
def test_a_site_that_fails_in_a_round_is_left_out_of_it(grid, run, output, caplog, answer, reason):
    grid.disturb = lambda node, message: answer if round_asked_for(message) == 1 and node == SOUTH else None
    run()
    assert f"south is left out: {reason}" in caplog.text
    assert rounds_of(output, "south") == {2}
    assert rounds_of(output, "north") == {1, 2}


def test_a_site_that_is_late_is_left_out_of_the_round(grid, run, output, caplog):
    grid.disturb = lambda node, message: "silence" if round_asked_for(message) == 1 and node == SOUTH else None
    run(answer_timeout=1.0)
    assert "south is left out: no answer in time" in caplog.text
    assert rounds_of(output, "south") == {2}


def test_a_site_that_is_gone_is_not_waited_for_and_takes_part_when_it_is_back(grid, run, output, caplog):
    south = grid.nodes[SOUTH]

    def disturb(node, message):
        if round_asked_for(message) == 1 and node == SOUTH:
            del grid.nodes[SOUTH]
        if message.meta.get("round") == 3:
            grid.nodes[SOUTH] = south

    grid.disturb = disturb
    run(n_rounds=4, answer_timeout=600.0)
    assert "south is left out: disconnected before it answered" in caplog.text
    assert "south is left out: not connected" in caplog.text
    assert rounds_of(output, "south") == {4}
    assert south.finished


def test_a_run_with_too_few_sites_left_says_why_each_has_gone(grid, run, output):
    grid.disturb = lambda node, message: Error(1, "no memory") if "round" in message.meta and node != WEST else None
    with pytest.raises((AggregationError, SiteError), match="north: Flower says: no memory; south: Flower says"):
        run()
    assert not (output / "model").exists()


def test_two_sites_of_one_name_are_told_apart(grid, run, make_site, caplog):
    grid.nodes[4] = make_site("north", run=2)
    run()
    assert "node 4 is left out: calls itself 'north', as another does: give each site a name of its own" in caplog.text
    assert not grid.nodes[4].finished


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
    assert (output / "run" / "plan").exists()
    assert not (output / "model").exists()
