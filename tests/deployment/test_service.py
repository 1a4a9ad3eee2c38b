"""A site's program as a service, in a process of its own: who may reach it, what it takes, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from fedscgen._local_socket import ask, receive_frame
from fedscgen._options import read_options
from fedscgen._types import REFUSAL, Message
from fedscgen.deployment import SiteConfig, write_options, write_site_files
from fedscgen.deployment._introduction import INTRODUCTION, Proposal
from quick import propose

FEDSCGEN = Path(sys.executable).parent / "fedscgen"
TRAINING = Message(INTRODUCTION, asdict(Proposal("training", "masked", reveals_counts=False, n_sites=3))).to_bytes()
QUESTION = propose("north", "south", "west", aggregator="masked", reference="mean").to_message().to_bytes()
RELAY, STRANGER, RELAYS = 64002, 64003, 64010  # two users and a group, without names


@pytest.fixture(scope="module")
def folder():
    """A short path, as a socket's is bounded, that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="site", dir=find_open_folder()) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def find_open_folder():
    """A folder for temporary files with nothing above it that is closed to other users; None where there is none."""
    for folder in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108
        above = [folder, *folder.resolve().parents]
        if folder.is_dir() and os.access(folder, os.W_OK) and all(path.stat().st_mode & stat.S_IXOTH for path in above):
            return folder
    return None


@contextmanager
def serve(config, path):
    """A service in its own process, which has begun to listen."""
    path.write_text(write_options(config))
    log_file = path.with_suffix(".log")
    with log_file.open("wb") as log:
        running = subprocess.Popen([FEDSCGEN, "site", "serve", path], stdout=log, stderr=log, umask=0o022)  # noqa: S603
    try:
        deadline = time.monotonic() + 120
        while f"listens at {config.find_socket()}" not in log_file.read_text():
            assert running.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield running
    finally:
        running.kill()
        running.wait()


def read(answer):
    return Message.from_bytes(answer)


@pytest.fixture(scope="module")
def config(folder):
    from cells import make_adata

    adata = make_adata()
    adata[adata.obs["batch"] == "site0"].copy().write_h5ad(folder / "north.h5ad")
    return SiteConfig("north", folder / "north.h5ad", folder / "results", accelerator="cpu")


@pytest.fixture(scope="module")
def service(config, folder):
    with serve(config, folder / "site.toml") as running:
        yield running


def test_a_run_is_answered_and_its_files_are_for_the_service_alone(service, config):
    answer = read(ask(config.find_socket(), 2**64 - 1, TRAINING, timeout=60))
    assert (answer.kind, answer.meta) == (INTRODUCTION, {"site": "north"})
    assert read(ask(config.find_socket(), 2**64 - 1, QUESTION, timeout=60)).kind != REFUSAL
    written = [config.output, *config.output.rglob("*")]
    assert any(path.name == "ledger.csv" for path in written)
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(config.find_socket().stat().st_mode) == 0o660


def test_a_service_that_was_killed_goes_on(config, folder):
    """A run's state is in the service, and what it needs to go on is on the disk."""
    config = SiteConfig("north", config.data, folder / "killed", accelerator="cpu")
    with serve(config, folder / "killed.toml") as running:
        ask(config.find_socket(), 1, TRAINING, timeout=60)
        running.kill()
        running.wait()
        assert config.find_socket().exists(), "as it was killed"
    with serve(config, folder / "killed.toml") as running:
        assert read(ask(config.find_socket(), 1, QUESTION, timeout=60)).kind != REFUSAL
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert not config.find_socket().exists()
    assert "site 'north' stops" in (folder / "killed.log").read_text()


def test_what_begins_no_run_leaves_nothing_behind(service, config):
    for run, message in ((7, QUESTION), (8, b"no message at all")):
        answer = read(ask(config.find_socket(), run, message, timeout=60))
        assert answer.kind == REFUSAL
        assert not (config.output / f"run-{run}").exists()
    assert "could not answer: the log of site 'north' says why" in answer.meta["reason"]


def connect(config):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(config.find_socket()))
    return connection


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack("<4sQQ", b"FSL1", 1, 2**40), "a message of 1099511627776 bytes: at most 1073741824 are taken"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not a message of fedscgen"),
    ],
)
def test_what_is_too_long_or_no_message_is_refused_unread(service, config, sent, reason):
    with connect(config) as connection:
        connection.sendall(sent)
        assert reason in read(receive_frame(connection, seconds=20)[1]).meta["reason"]


def test_few_connections_are_held_at_a_time(service, config):
    held = [connect(config) for _ in range(8)]
    with connect(config) as one_more:
        assert read(receive_frame(one_more, seconds=20)[1]).meta["reason"] == "the site is busy"
    for connection in held:
        connection.close()
    time.sleep(0.5)
    assert read(ask(config.find_socket(), 1, TRAINING, timeout=60)).kind == INTRODUCTION


def test_a_second_service_of_the_same_results_is_refused(service, config, folder):
    (folder / "again.toml").write_text(write_options(config))
    answer = subprocess.run([FEDSCGEN, "site", "serve", folder / "again.toml"], capture_output=True, text=True)  # noqa: S603
    assert answer.returncode == 2
    assert "another run is writing to" in answer.stderr


LOOK = """if True:
    import os, sys
    from pathlib import Path
    from fedscgen._local_socket import ask
    user, groups, *paths = sys.argv[1:]
    os.setgroups([int(group) for group in groups.split()])
    os.setgid(int(user))
    os.setuid(int(user))
    try:
        print("answer", len(ask(Path(paths[0]), 1, b"x", timeout=20)) > 0)
    except OSError as error:
        print("no answer", type(error).__name__)
    for path in map(Path, paths[1:]):
        try:
            print("read", list(path.iterdir()) if path.is_dir() else path.read_bytes()[:1])
        except OSError as error:
            print("unread", type(error).__name__)
    """


@pytest.mark.skipif(os.geteuid() != 0, reason="takes other users, which only root can become")
def test_another_user_reaches_the_socket_and_nothing_else(config, folder):
    """The SuperNode's user is in the group, and not the service's; a third may not even connect."""
    if find_open_folder() is None:
        pytest.skip("needs a folder for temporary files that every user can enter")
    data = folder / "cells.h5ad"
    data.write_bytes(config.data.read_bytes())
    data.chmod(0o600)
    config = SiteConfig("north", data, folder / "out", socket=folder / "s", socket_group=str(RELAYS))

    def look(user, groups):
        command = [sys.executable, "-c", LOOK, str(user), groups, folder / "s", data, folder / "out"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603

    with serve(config, folder / "other.toml"):
        assert look(RELAY, str(RELAYS)) == ["answer True", "unread PermissionError", "unread PermissionError"]
        assert look(STRANGER, "") == ["no answer PermissionError", *["unread PermissionError"] * 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"socket": Path("/" + "x" * 120)}, "longer than 107 bytes"),
        ({"socket": Path("/no/such/folder/s")}, "make the folder /no/such/folder"),
        ({"socket": Path(__file__)}, "is something else"),
        ({"socket_group": "nobody-has-this"}, "there is no such group: groupadd nobody-has-this"),
    ],
)
def test_a_socket_that_can_t_be_is_told_with_the_remedy(config, folder, options, message):
    from fedscgen.deployment._service import _listen

    given = SiteConfig("north", config.data, folder / "never", **options)
    with pytest.raises((ValueError, OSError), match=message), _listen(given.find_socket(), given.socket_group):
        pass


def test_init_writes_a_site_s_file_and_a_unit(tmp_path):
    write_site_files(tmp_path / "site", "south")
    given = tomllib.loads((tmp_path / "site" / "site.toml").read_text())
    config = read_options(SiteConfig, given, "site.toml")
    assert config.site == "south"
    assert config == SiteConfig.read(tmp_path / "site" / "site.toml")
    unit = (tmp_path / "site" / "fedscgen-site.service").read_text()
    assert str(config.data) in unit
    for line in ("User=fedscgen", "UMask=0077", "ProtectSystem=strict", "PrivateNetwork=true", "NoNewPrivileges=true"):
        assert f"{line}\n" in unit
    assert config.socket_group in unit
    assert stat.S_IMODE((tmp_path / "site").stat().st_mode) == 0o700


def test_a_site_s_file_is_read_strictly(tmp_path):
    (tmp_path / "site.toml").write_text('site = "north"\nmin-site = 3\n')
    with pytest.raises(ValueError, match=r"site\.toml: it lacks data, output"):
        SiteConfig.read(tmp_path / "site.toml")
    (tmp_path / "site.toml").write_text("site = north")
    with pytest.raises(ValueError, match=r"site\.toml is not TOML"):
        SiteConfig.read(tmp_path / "site.toml")
