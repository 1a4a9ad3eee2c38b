"""What a SuperNode runs for every message: it starts fast, knows where a socket is, and holds nothing."""

import os
import socket
import subprocess
import sys
import threading

import pytest
from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.supercore.task_identity import TaskIdentity

from fedscgen._local_socket import receive_frame, send_frame
from fedscgen._options import names_of, read_options
from fedscgen._types import Message
from fedscgen.flower import client_app
from fedscgen.flower._wire import wrap

QUESTION = Message("genes and cell types").to_bytes()


def test_it_imports_nothing_heavy():
    heavy = "{'torch', 'scvi', 'anndata', 'pandas', 'scipy', 'sklearn', 'fedscgen.deployment', 'fedscgen.federation'}"
    code = f"import sys, fedscgen.flower.client_app; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert answer.stdout.strip() == "set()"


def test_it_knows_a_socket_and_nothing_of_the_site():
    assert names_of(client_app.RelayConfig) == ["socket", "allow_insecure_channel"]
    for key in ("site", "data", "output"):
        with pytest.raises(ValueError, match=f"unknown '{key}' in --node-config: there are socket, allow-insecure"):
            read_options(client_app.RelayConfig, {"socket": "/run/s", key: "north"}, "--node-config")


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """What the app answers to a message, whose site listens at a socket."""
    monkeypatch.setattr(client_app, "refuse_insecure_channel", lambda program, allowed: None)
    for identity in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, identity, 1, raising=False)

    def ask(content, **node_config):
        config = {"socket": os.path.relpath(tmp_path / "s"), **node_config}  # short, as a socket's path is bounded
        context = Context(
            run_id=2**63 + 7, node_id=1, node_config=config, state=RecordDict(), run_config={}, series_id=1
        )
        message = FlowerMessage(content, 1, "query", ttl=20.0)
        return client_app._hand_on(message, context)

    return ask


def serve_once(listener, seen, answer):
    connection, _ = listener.accept()
    with connection:
        seen.append(receive_frame(connection, seconds=10))
        if answer is not None:
            send_frame(connection, seen[0][0], answer)


@pytest.mark.parametrize("answer", [b"the answer", None])
def test_bytes_go_to_the_socket_and_come_back_as_they_are(ask, tmp_path, answer):
    seen = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s"))
        listener.listen()
        listener.settimeout(20)
        serving = threading.Thread(target=serve_once, args=(listener, seen, answer))
        serving.start()
        given = ask(wrap(QUESTION))
        serving.join()
    assert seen == [(2**63 + 7, QUESTION)]
    if answer is None:
        assert "no answer of the site's service" in Message.from_bytes(given).meta["reason"]
    else:
        assert given == answer


def test_the_coordinator_learns_no_path_of_a_site_that_does_not_answer(ask, tmp_path):
    for given in (ask(wrap(QUESTION)), ask(wrap(QUESTION), data="/data/north.h5ad"), ask(RecordDict())):
        reason = Message.from_bytes(given).meta["reason"]
        assert "log says why" in reason
        assert "/" not in reason


def test_a_channel_in_the_clear_is_refused(ask, monkeypatch):
    def refuse(program, allowed):
        raise client_app.InsecureChannelError("seen")

    monkeypatch.setattr(client_app, "refuse_insecure_channel", refuse)
    assert "isn't encrypted" in Message.from_bytes(ask(wrap(QUESTION))).meta["reason"]
