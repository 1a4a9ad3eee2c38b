"""Messages between apps of the real engine in this process, over a controller that disturbs them."""

from __future__ import annotations

import os
import pickle
import time

import pytest

from featurecloud_network import Controller, LocalLink
from fedscgen._types import Message
from fedscgen.deployment import Failure

CLIENTS = ["north", "south", "west"]
TIMEOUT = 3.0


class Network:
    """Three apps: north leads by a function of its carrier, the others answer ``b"NAME: question"``."""

    def __init__(self, engine, carrier, participant):
        self._engine = engine
        self._carrier = carrier
        self.ended = {}
        self.asked = {client: [] for client in CLIENTS}
        self.patience = 20.0
        self._participant = participant

    def run(self, lead, disturb=None, replace=None, timeout=30.0):
        apps = {client: self._make_app(client, lead) for client in CLIENTS}
        self.controller = Controller({client: LocalLink(app) for client, app in apps.items()}, interval=0.005)
        if disturb is not None:
            self.controller.disturb = disturb
        if replace is not None:
            self.controller.replace = replace
        try:
            self.controller.run(timeout)
        finally:
            for app in apps.values():
                del app.data_outgoing[:-1]  # for which the engine's thread would wait without end
                app.thread.join(timeout=5)

    def _make_app(self, client, lead):
        network, mailbox = self, self._carrier.Mailbox()
        app = self._engine.App()
        app.handle_incoming = mailbox.put

        class Initial(self._engine.AppState):
            def register(self):
                self.register_transition("terminal")

            def run(self):
                if self.is_coordinator:
                    carrier = network._carrier.ControllerCarrier(
                        self, mailbox, lambda data: network.answer(client, data)
                    )
                    try:
                        lead(carrier)
                    finally:
                        end = Message("end", {"reason": "it is over"}).to_bytes()
                        self.broadcast_data(end, send_to_self=False, memo="end")
                else:
                    answer = lambda data: network.answer(client, data)  # noqa: E731
                    try:
                        network.ended[client] = network._participant(self, mailbox, answer, network.patience)[0].meta
                    except RuntimeError as error:
                        network.ended[client] = error
                return "terminal"

        self._engine.app_state("initial", app_instance=app)(Initial)
        app.register()
        return app

    def answer(self, client, data):
        self.asked[client].append(bytes(data))
        return client.encode() + b": " + bytes(data)


@pytest.fixture
def network(engine, monkeypatch):
    import FeatureCloud.app.engine.app as real

    from fedscgen.featurecloud import _carrier, _mailbox
    from fedscgen.featurecloud._participant import answer_questions

    for name in ("TERMINAL_WAIT", "TRANSITION_WAIT"):
        monkeypatch.setattr(real, name, 0.01)
    monkeypatch.setattr(_carrier, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(_carrier, "Mailbox", _mailbox.Mailbox, raising=False)
    return Network(real, _carrier, answer_questions)


def ask(carrier, *questions, clients=CLIENTS, timeout=TIMEOUT):
    """What comes of each question: answers by client."""
    return [dict(carrier.exchange(dict.fromkeys(clients, question), timeout)) for question in questions]


def expected(question, clients=CLIENTS):
    return {client: client.encode() + b": " + question for client in clients}


def test_each_question_has_everybody_s_answer_and_the_end_reaches_all(network):
    got = []
    network.run(lambda carrier: got.extend(ask(carrier, b"one", b"two")))
    assert got == [expected(b"one"), expected(b"two")]
    assert network.ended == {client: {"reason": "it is over"} for client in CLIENTS[1:]}


def test_what_all_get_is_sent_once_and_what_each_gets_reaches_nobody_else(network):
    got = []

    def lead(carrier):
        got.append(dict(carrier.exchange({"south": b"for south", "west": b"for west"}, TIMEOUT)))
        got.extend(ask(carrier, b"for all"))

    network.run(lead)
    assert got[0] == {"south": b"south: for south", "west": b"west: for west"}
    assert network.asked["west"] == [b"for west", b"for all"]
    receivers = [message.receivers for message in network.controller.relayed if message.memo == "q_2"]
    assert receivers == [("south", "west")]


def test_memos_have_no_character_that_is_quoted(network):
    network.run(lambda carrier: ask(carrier, b"one"))
    memos = {message.memo for message in network.controller.relayed}
    assert memos == {"q_1", "a_1", "end"}


@pytest.mark.parametrize("lost", ["q_2", "a_2"])
def test_a_lost_message_costs_one_answer_within_its_time(network, lost):
    got = []

    def disturb(message):
        is_it = message.memo == lost and "south" in (message.sender, *message.receivers)
        return () if is_it else (0.0,)

    def lead(carrier):
        got.extend(ask(carrier, b"one"))
        began = time.monotonic()
        got.append(dict(carrier.exchange({"north": b"two", "south": b"two", "west": b"2"}, 1.0)))
        assert time.monotonic() - began < 2.5
        got.extend(ask(carrier, b"three"))

    network.run(lead, disturb)
    assert got == [expected(b"one"), {"north": b"north: two", "west": b"west: 2"}, expected(b"three")]


def test_delays_and_duplicates_change_no_answer(network):
    got = []
    network.run(
        lambda carrier: got.extend(ask(carrier, b"one", b"two", b"three")),
        disturb=lambda message: (0.0, 0.05, 0.4) if message.memo != "end" else (0.0,),
    )
    assert got == [expected(question) for question in (b"one", b"two", b"three")]
    assert network.asked == {client: [b"one", b"two", b"three"] for client in CLIENTS}


def test_an_answer_that_comes_late_is_never_taken_for_another(network):
    got = []
    network.run(
        lambda carrier: got.extend(ask(carrier, b"one", b"two", timeout=0.8)),
        disturb=lambda message: (1.0,) if (message.memo, message.sender) == ("a_1", "south") else (0.0,),
    )
    assert got == [expected(b"one", ["north", "west"]), expected(b"two")]


def test_who_never_answers_is_waited_for_at_length_only_once(network):
    took = []

    def lead(carrier):
        for question in (b"one", b"two", b"three"):
            began = time.monotonic()
            assert ask(carrier, question, timeout=2.0) == [expected(question, ["north", "west"])]
            took.append(time.monotonic() - began)

    network.patience = 4.0
    network.run(lead, disturb=lambda message: () if "south" in (message.sender, *message.receivers) else (0.0,))
    assert took[0] >= 2.0
    assert max(took[1:]) < 1.5
    assert "nothing was heard of the coordinator for 4 s" in str(network.ended["south"])


def test_an_answer_in_another_s_name_or_to_no_question_is_not_read(network):
    got = []

    def disturb(message):
        if message.memo == "a_1" and message.sender == "south":
            link = network.controller.links["north"]
            for sender, memo in (("east", "a_1"), ("north", "a_1"), ("west", "a_7"), ("south", "q_1")):
                link.deliver(sender, memo, pickle.dumps(b"forged"))
            network.controller.links["west"].deliver("south", "q_9", pickle.dumps(b"forged"))
        return (0.0,)

    network.run(lambda carrier: got.extend(ask(carrier, b"one", b"two")), disturb)
    assert got == [expected(b"one"), expected(b"two")]


class Hostile:
    """What ends the tests when it is unpickled."""

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.parametrize("memo", ["a_1", "q_1"])
def test_a_hostile_pickle_is_refused_at_both_ends_and_the_run_goes_on(network, memo):
    got = []

    def replace(message):
        is_it = message.memo == memo and "west" in (message.sender, *message.receivers)
        return pickle.dumps(Hostile()) if is_it else message.data

    network.run(lambda carrier: got.extend(ask(carrier, b"one", b"two")), replace=replace)
    if memo == "a_1":
        assert isinstance(got[0]["west"], Failure)
        assert "a pickle of something else than bytes" in got[0]["west"].reason
    else:
        refusal = Message.from_bytes(got[0]["west"])
        assert refusal.kind == "refusal"
        assert "can't be read" in refusal.meta["reason"]
    assert got[1] == expected(b"two")


def test_the_engine_itself_unpickles_nothing_once_the_app_is_set_up(engine, tmp_path, monkeypatch):
    import FeatureCloud.app.engine.app as real

    from fedscgen.featurecloud._frame import FrameError
    from fedscgen.featurecloud.app import set_up

    monkeypatch.setattr(real, "_deserialize_incoming", real._deserialize_incoming)  # to have it back afterwards
    app = real.App()
    set_up(app, tmp_path, tmp_path)
    app.handle_incoming(pickle.dumps(Hostile()), "south", memo="None")
    assert not app.data_incoming  # nothing that await_data could find
    with pytest.raises(FrameError):
        real._deserialize_incoming(pickle.dumps(Hostile()))
