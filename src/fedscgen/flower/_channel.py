"""Whether the channel between a site and the coordinator is encrypted, read off the Flower program that holds it."""

from __future__ import annotations

import argparse
import os
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class InsecureChannelError(RuntimeError):
    """What the site and the coordinator say to each other could be read on its way."""


class _Program(NamedTuple):
    address_option: str
    default_address: str
    has_port: bool
    encrypting_options: str


_PROGRAMS = {
    "flower-supernode": _Program("--superlink", "127.0.0.1:8000", True, "--root-certificates"),
    "flower-superlink": _Program("--host", "127.0.0.1", False, "--ssl-certfile, --ssl-keyfile and --ssl-ca-certfile"),
}


class _Process(NamedTuple):
    parent: int
    arguments: list[str]


def refuse_insecure_channel(program: str, allowed: bool) -> None:
    """Refuse to go on where Flower's messages could be read by others.

    Flower tells its apps nothing of the channel, so that the command line of the program that started this process
    has to be looked at. One that can't be seen, as in another container, is refused, too.

    Parameters
    ----------
    program
        ``"flower-supernode"`` at a site, ``"flower-superlink"`` at the coordinator.
    allowed
        Whether the user has said that the channel is protected otherwise, or needs no protection.

    Raises
    ------
    InsecureChannelError
        The program runs with ``--insecure`` at an address that isn't this computer's own, or was not found.
    """
    if allowed:
        return
    arguments = _arguments_of_ancestor(program)
    if arguments is None:
        raise InsecureChannelError(
            f"can't see how the channel is protected: no {program} has started this process; run it on the same "
            "computer or, if you know that the channel is encrypted, set allow-insecure-channel=true"
        )
    address = _insecure_address(program, arguments)
    if address is not None:
        raise InsecureChannelError(
            f"{program} was started with --insecure at {address}, and others could read what it carries: start it "
            f"with {_PROGRAMS[program].encrypting_options} and without --insecure or, if the channel is protected "
            "otherwise, set allow-insecure-channel=true"
        )


def runs_below(program: str) -> bool:
    """Whether this process was started by such a program, directly or not."""
    return _arguments_of_ancestor(program) is not None


def _insecure_address(program: str, arguments: Sequence[str]) -> str | None:
    """The address beyond this computer with which a program of these arguments speaks in the clear, if it does."""
    option, default, has_port, _ = _PROGRAMS[program]
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)  # reads abbreviations just as Flower's does
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument(option, dest="address", default=default)
    found, _ = parser.parse_known_args(list(arguments))
    host = found.address.rpartition(":")[0] if has_port else found.address
    return found.address if found.insecure and not _is_loopback(host) else None


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _arguments_of_ancestor(program: str) -> list[str] | None:
    """What follows the program's name on the command line of the nearest ancestor that runs it."""
    for arguments in _ancestors():
        names = [Path(argument).name for argument in arguments]
        if program in names:
            return arguments[names.index(program) + 1 :]
    return None


def _ancestors() -> Iterator[list[str]]:
    """Command lines of this process' ancestors, nearest first, as far as they can be seen."""
    look_up = _look_up_in_proc if Path("/proc/self/stat").exists() else _look_up_by_ps
    process = os.getppid()
    while process > 0 and (found := look_up(process)) is not None:
        yield found.arguments
        process = found.parent


def _look_up_in_proc(process: int) -> _Process | None:
    folder = Path("/proc") / str(process)
    try:
        stat = folder.joinpath("stat").read_text(errors="replace")
        command = folder.joinpath("cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()  # the name itself may hold spaces and brackets
    return _Process(int(after_name[1]), command.split("\0")[:-1])


def _look_up_by_ps(process: int) -> _Process | None:
    command = ["ps", "-ww", "-o", "ppid=", "-o", "command=", "-p", str(process)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (our own command, no shell)
    except OSError:
        return None
    words = answer.stdout.split()
    return _Process(int(words[0]), words[1:]) if words else None
