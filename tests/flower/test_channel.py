"""Flower's own command line decides whether anything is carried: it is read off real processes here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from fedscgen.flower._channel import (
    InsecureChannelError,
    _insecure_address,
    _look_up_by_ps,
    _look_up_in_proc,
    refuse_insecure_channel,
)

APP = """
from fedscgen.flower._channel import InsecureChannelError, refuse_insecure_channel
try:
    refuse_insecure_channel({program!r}, {allowed})
    print("goes on")
except InsecureChannelError as error:
    print("refused:", error)
"""
STARTS = "import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"


@pytest.fixture
def said_beneath(tmp_path):
    """What an app says that a Flower program with these arguments has started."""

    def run(program, *arguments, looked_for=None, allowed=False):
        app = APP.format(program=looked_for or program, allowed=allowed)
        between = STARTS.format(code=app)  # as Flower has a program between the two
        script = tmp_path / program
        script.write_text(STARTS.format(code=between))
        command = [sys.executable, script, *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        return answer.stdout.strip()

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--superlink", "hospital.example:8000", "--root-certificates", "ca.crt"],
        ["--insecure"],
        ["--insecure", "--superlink", "127.0.0.1:8000"],
        ["--insecure", "--superlink=127.8.8.8:8000"],
        ["--insecure", "--superlink", "[::1]:8000"],
        ["--superlink", "LocalHost:8000", "--insecure"],
    ],
)
def test_a_site_that_encrypts_or_stays_on_its_computer_goes_on(arguments):
    assert _insecure_address("flower-supernode", arguments) is None


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["--insecure", "--superlink", "10.0.0.1:8000"], "10.0.0.1:8000"),
        (["--superlink=10.0.0.1:8000", "--insecure"], "10.0.0.1:8000"),
        (["--insec", "--superl", "10.0.0.1:8000"], "10.0.0.1:8000"),
        (["--insecure", "--superlink", "[2001:db8::1]:8000"], "[2001:db8::1]:8000"),
        (["--insecure", "--superlink", "localhost.example:8000"], "localhost.example:8000"),
        (["--insecure", "--superlink", "localhost:1", "--superlink", "superlink:8000"], "superlink:8000"),
        (["--node-config", 'site="a" data="b c"', "--insecure", "--superlink", "superlink:8000"], "superlink:8000"),
    ],
)
def test_a_site_that_speaks_in_the_clear_is_found_with_its_address(arguments, address):
    assert _insecure_address("flower-supernode", arguments) == address


def test_the_coordinator_is_told_by_the_host_that_it_is_bound_to():
    assert _insecure_address("flower-superlink", ["--insecure"]) is None
    assert _insecure_address("flower-superlink", ["--insecure", "--host", "::1", "--port", "9000"]) is None
    assert _insecure_address("flower-superlink", ["--host", "0.0.0.0", "--ssl-certfile", "server.pem"]) is None  # noqa: S104
    for host in ("0.0.0.0", "::", "192.168.1.5", "superlink", ""):  # noqa: S104
        assert _insecure_address("flower-superlink", ["--insecure", "--host", host]) == host
        assert _insecure_address("flower-superlink", ["--insecure", f"--host={host}"]) == host


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_flower_s_own_parsers_have_the_same_options_and_defaults():
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    assert _parse_args_run_supernode().parse_args(["--insec"]).insecure
    assert _parse_args_run_supernode().parse_args(["--insecure"]).superlink == "127.0.0.1:8000"
    assert _parse_args_run_superlink().parse_args(["--insecure"]).host == "127.0.0.1"


def test_an_app_beneath_a_flower_program_that_encrypts_goes_on(said_beneath):
    arguments = ["--superlink", "10.0.0.1:8000", "--root-certificates", "ca.crt"]
    assert said_beneath("flower-supernode", *arguments) == "goes on"


def test_an_app_beneath_an_insecure_flower_program_is_refused_with_the_remedies(said_beneath):
    said = said_beneath("flower-supernode", "--insecure", "--superlink", "10.0.0.1:8000")
    assert said.startswith("refused: flower-supernode was started with --insecure at 10.0.0.1:8000")
    assert "start it with --root-certificates and without --insecure" in said
    assert "allow-insecure-channel" in said
    said = said_beneath("flower-superlink", "--insecure", "--host", "0.0.0.0")  # noqa: S104
    assert "at 0.0.0.0" in said
    assert "--ssl-certfile" in said


def test_what_the_user_allows_goes_on(said_beneath):
    arguments = ["--insecure", "--superlink", "10.0.0.1:8000"]
    assert said_beneath("flower-supernode", *arguments, allowed=True) == "goes on"


def test_a_program_that_runs_elsewhere_is_refused_unless_allowed(said_beneath):
    said = said_beneath("flower-superexec", "--insecure", looked_for="flower-supernode")
    assert said.startswith("refused: can't see how the channel is protected: no flower-supernode")
    assert "allow-insecure-channel" in said
    refuse_insecure_channel("flower-supernode", True)
    with pytest.raises(InsecureChannelError, match="can't see"):
        refuse_insecure_channel("flower-supernode", False)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat") or not shutil.which("ps"), reason="needs /proc and ps")
def test_ps_shows_what_proc_shows():
    this = os.getpid()
    assert _look_up_by_ps(this).parent == _look_up_in_proc(this).parent == os.getppid()
    assert _look_up_by_ps(this).arguments == " ".join(_look_up_in_proc(this).arguments).split()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_process_with_brackets_and_spaces_in_its_name_has_a_parent(tmp_path):
    odd = tmp_path / "odd) 7 (name"
    odd.symlink_to(shutil.which("cat"))
    with subprocess.Popen([odd, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:  # noqa: S603
        process.stdin.write(b"echo\n")
        assert process.stdout.readline() == b"echo\n", "it runs by now"
        assert _look_up_in_proc(process.pid) == (os.getpid(), [str(odd), "-"])


def test_a_process_that_is_gone_is_not_seen():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert _look_up_in_proc(process.pid) is None
    assert _look_up_by_ps(process.pid) is None
