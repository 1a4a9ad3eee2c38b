"""A ledger's file: nobody alters it unseen, and a spreadsheet executes nothing of it."""

import csv
import hashlib
import json
import os
import stat

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.federation import LedgerCheck, PrivacyLedger, check_ledger, read_ledger
from fedscgen.federation._ledger_file import COLUMNS, EVIDENCE

WORDS = ["introduction", "settings", "mask public keys", "model weights", "a, b", "sums\nof lines", 'a "word"']


def message(kind="model weights", **meta):
    return Message(kind, meta, {"w": np.arange(3.0)})


@pytest.fixture
def path(tmp_path):
    """A ledger of seven rows, by two processes' worth of objects."""
    path = tmp_path / "ledger.csv"
    for words in (WORDS[:3], WORDS[3:]):
        ledger = PrivacyLedger(path)
        for word in words:
            asked = message(word, round=1)
            ledger.record("server", "north", asked, asked.to_bytes(), keep=word == "settings")
    return path


def rewrite(path, change):
    """Change a ledger's lines, of which one holds a quoted line break."""
    lines = path.read_text().split("\n")[:-1]
    lines[6:8] = ["\n".join(lines[6:8])]
    path.write_text("".join(f"{line}\n" for line in change(lines)))


def test_rows_hold_the_hash_of_the_message_and_are_chained_as_documented(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*COLUMNS, *EVIDENCE]
    assert [row[3] for row in rows] == WORDS
    assert rows[0][-3] == hashlib.sha256(message("introduction", round=1).to_bytes()).hexdigest()
    first = path.read_text().split("\n")[1]
    start = hashlib.sha256(",".join(header).encode()).hexdigest()
    assert first[-64:] == hashlib.sha256(f"{start}\n{first[:-65]}".encode()).hexdigest()
    assert check_ledger(path) == LedgerCheck(7, rows[-1][-1])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: [*lines[:3], lines[3].replace("48", "47"), *lines[4:]], None),
        (lambda lines: [line.replace("north", "south") for line in lines], "line 2 was altered"),
        (lambda lines: [*lines[:3], lines[3].replace("server", "sarver"), *lines[4:]], "line 4 was altered"),
        (lambda lines: [*lines[:3], lines[3].replace("none", '"none"'), *lines[4:]], "line 4 was altered"),
        (lambda lines: [*lines[:4], *lines[5:]], "line 5 was altered, or a line before it is missing"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 was altered, or a line before it is missing"),
        (
            lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
            "line 3 is not in its place: it was written after line 4",
        ),
        (lambda lines: [*lines[:5], lines[2], *lines[5:]], "line 6 is not in its place: it was written after line 2"),
        (lambda lines: [*lines[:-1], lines[-1][:-70]], "line 9 was altered"),
    ],
)
def test_the_first_line_that_was_altered_is_named(path, change, fault):
    before = path.read_text()
    rewrite(path, change)
    if fault is None:
        assert path.read_text() == before, "this changes nothing"
        return
    found = check_ledger(path)
    assert found.fault.startswith(fault)
    assert 0 <= found.n_rows < 7


def test_what_is_cut_off_at_the_end_is_seen_by_a_chain_that_was_noted(path):
    head = check_ledger(path).head
    PrivacyLedger(path).record("north", "server", message(), b"more")
    assert check_ledger(path, head).fault == "", "rows have come since"
    rewrite(path, lambda lines: lines[:6])
    assert check_ledger(path).fault == ""
    assert check_ledger(path, head).fault == f"no row has the chain {head}: rows were cut off, or all were written anew"


@pytest.mark.parametrize("n_bytes", [1, 30, 150])
def test_a_line_that_was_not_finished_is_no_alteration_and_the_chain_goes_on_after_it(path, n_bytes):
    whole = check_ledger(path)
    PrivacyLedger(path).record("north", "server", message(), b"more")
    content = path.read_bytes()
    rest = content[content.rfind(b"\n", 0, -1) + 1 :][:n_bytes]
    path.write_bytes(content[: content.rfind(b"\n", 0, -1) + 1] + rest)
    assert check_ledger(path) == LedgerCheck(7, whole.head, "", True)
    PrivacyLedger(path).record("north", "server", message("after"), b"data")
    assert check_ledger(path, whole.head).fault == ""
    rows = read_ledger(path)
    assert list(rows["kind"][-2:]) == ["unfinished line", "after"]
    assert rows["sha256"].iloc[-2] == hashlib.sha256(rest).hexdigest()


def test_a_new_file_of_which_not_even_the_header_was_finished_begins_anew(tmp_path):
    for begun in ("", "round,sen"):
        path = tmp_path / f"{len(begun)}.csv"
        path.write_text(begun)
        PrivacyLedger(path).record("north", "server", message(), b"data")
        assert check_ledger(path).n_rows == 1


def test_settings_that_were_received_are_kept_and_checked(path):
    kept = path.with_name("settings.json")
    assert json.loads(kept.read_text()) == {"round": 1}
    again = message("settings", round=2)
    for _ in range(2):
        PrivacyLedger(path).record("server", "north", again, again.to_bytes(), keep=True)
    assert sorted(file.name for file in path.parent.glob("settings*")) == ["settings-2.json", "settings.json"]
    assert check_ledger(path).fault == ""
    kept.write_text('{"round":3}')
    assert check_ledger(path).fault == "line 3 names settings that were altered, or are missing beside it"


def test_no_more_settings_are_kept_than_a_run_needs(path):
    """A coordinator that proposes plan after plan must not fill the site's disk."""
    ledger = PrivacyLedger(path)
    for number in range(2, 17):
        ledger.record("server", "north", message("settings", round=number), b"plan", keep=True)
    for too_much in ({"round": 17}, {"round": 1, "padding": ["x" * 10_000] * 500}):
        with pytest.raises(ValueError, match="the plan of 'settings' is too large, or one of too many"):
            ledger.record("server", "north", message("settings", **too_much), b"plan", keep=True)
    assert len(list(path.parent.glob("settings*"))) == 16
    checked = check_ledger(path)
    assert (checked.n_rows, checked.fault) == (7 + 15 + 2, ""), "what was refused is on record"


def test_a_ledger_has_an_end(path, monkeypatch):
    monkeypatch.setattr("fedscgen.federation._ledger_file._MOST_ROWS_BYTES", path.stat().st_size - 1)
    with pytest.raises(ValueError, match="and no run needs more: begin another one"):
        PrivacyLedger(path).record("server", "north", message(), b"data")
    assert check_ledger(path).n_rows == 7


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "\rx", "'quoted", "plain"])
def test_a_cell_that_a_spreadsheet_would_execute_is_text_and_read_back_as_it_was(tmp_path, name):
    path = tmp_path / "ledger.csv"
    PrivacyLedger(path).record(name, "server", message(name), b"data")
    with path.open(newline="") as file:
        _, row = csv.reader(file)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    assert read_ledger(path)[["sender", "kind"]].values.tolist() == [[name, name]]
    assert check_ledger(path).fault == ""


def test_nobody_else_can_read_it(path):
    assert os.umask(0o022) is not None
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_other_files_are_refused_and_left_as_they_are(tmp_path):
    path = tmp_path / "ledger.csv"
    for content in ("a,b\n1,2\n", ",".join(COLUMNS) + "\n", "a"):
        path.write_text(content)
        with pytest.raises(ValueError, match="is no ledger with a chain"):
            PrivacyLedger(path).record("north", "server", message(), b"data")
        with pytest.raises(ValueError, match="is no ledger with a chain"):
            check_ledger(path)
        assert path.read_text() == content
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no privacy ledger"):
        check_ledger(path)


def test_a_message_whose_round_is_no_number_is_refused(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.csv")
    for odd in ("abc", True, [1], 1.5):
        with pytest.raises(ValueError, match="message 'k' has the round"):
            ledger.record("north", "server", Message("k", {"round": odd}), b"data")
    assert ledger.to_frame().empty
