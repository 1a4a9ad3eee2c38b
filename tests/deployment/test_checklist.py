"""The data-protection officer's list, from the ledger of a real federation."""

import pandas as pd
import pytest

from cells import make_adata
from fedscgen._types import Message
from fedscgen.deployment import checklist
from fedscgen.federation import PrivacyLedger, check_ledger
from fedscgen.secure import Protection
from pages import read_blocks
from quick import QUICK, simulate


@pytest.fixture(scope="module")
def ledgers():
    return {secure: simulate(make_adata(), secure=secure, **QUICK).ledger for secure in ("masked", "plain")}


def written(ledger, tmp_path, site="site0"):
    ledger.to_csv(tmp_path / "ledger.csv", index=False)
    return checklist(tmp_path / "ledger.csv", site)


def test_it_lists_every_kind_of_message_that_was_sent_and_adds_up(ledgers, tmp_path):
    text = written(ledgers["masked"], tmp_path)
    sent = ledgers["masked"].query("sender == 'site0'")
    assert f"{len(sent)} messages, {sent['bytes'].sum():,} bytes, to server" in text
    for kind in sent["kind"].unique():
        assert f"- [ ] {kind} (" in text
    listed = [line for line in text.splitlines() if " times, " in line]
    counted = sum(int(line.split(" times, ")[0].rpartition(" ")[2]) for line in listed)
    assert counted == len(sent)


def test_numbers_in_the_clear_stand_out(ledgers, tmp_path):
    assert "was that agreed?" not in written(ledgers["masked"], tmp_path)
    suspicious = [line for line in written(ledgers["plain"], tmp_path).splitlines() if "was that agreed?" in line]
    assert any("model weights" in line for line in suspicious)


def test_each_kind_of_protection_is_explained_as_everywhere(ledgers, tmp_path):
    ledger = ledgers["masked"]
    row = ledger[ledger["sender"] == "site0"].iloc[[-1]]
    for word in Protection:
        text = written(row.assign(protection=word.value, shape="(3,)"), tmp_path)
        assert f"protection `{word.value}`: " in text
        assert (f"**{word.explanation}**: was that agreed?" if word.readable else word.explanation) in text
    with pytest.raises(ValueError, match="unknown protection 'magic': choose one of 'none'"):
        written(row.assign(protection="magic"), tmp_path)


def test_a_site_may_be_called_like_a_missing_value(ledgers, tmp_path):
    ledger = ledgers["masked"].replace({"site0": "NA"})
    text = written(ledger, tmp_path, "NA")
    assert text.startswith("# What has left site NA\n")
    assert text == written(ledgers["masked"], tmp_path).replace("site site0", "site NA")
    with pytest.raises(ValueError, match=r"its senders are \['NA', 'server', 'site1', 'site2'\]"):
        written(ledger, tmp_path, "nowhere")


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_message_whose_protection_is_not_said_is_listed_as_not_protected(ledgers, tmp_path, nothing):
    row = ledgers["masked"].query("sender == 'site0'").iloc[[-1]].assign(shape="(3,)", kind="odd")
    text = written(row.assign(protection=nothing), tmp_path)
    assert "- [ ] odd ((3,)), 1 times" in text
    assert "protection `none`: **not protected: the receiver can read it**: was that agreed?" in text


def test_the_page_shows_lines_as_the_program_prints_them(tmp_path):
    (example,) = read_blocks("docs/deployment.md", "text", "For the data-protection officer")
    rows = [("introduction", "names and settings", 109, "none"), ("masked model weights", "(9,)", 90, "masked")]
    ledger = pd.DataFrame([(None, "north", "server", *row) for row in rows], columns=PrivacyLedger.columns)
    printed = [line for line in written(ledger, tmp_path, "north").splitlines() if " times, " in line]
    shown = example.splitlines()
    assert shown[0] == printed[0]
    assert shown[1].partition("protection ")[2] == printed[1].partition("protection ")[2]


def test_it_lists_what_was_asked_and_says_nothing_of_cells_that_it_cannot_know(ledgers, tmp_path):
    text = written(ledgers["masked"], tmp_path)
    asked = ledgers["masked"].query("receiver == 'site0'").groupby("kind")["bytes"].agg(["count", "sum"])
    for kind, n, size in asked.itertuples():
        assert f"- [ ] {kind}: {n} messages of {size:,} bytes together, as many as were agreed" in text
    assert "in no message" not in text
    assert "**The ledger has no chain**" in text


def test_it_tells_whether_the_ledger_is_as_it_was_written(tmp_path):
    path = tmp_path / "ledger.csv"
    ledger = PrivacyLedger(path)
    for kind in ("settings", "model weights"):
        ledger.record("server", "north", Message(kind), b"question")
        ledger.record("north", "server", Message(kind, {"protection": "masked"}), b"answer")
    head = check_ledger(path).head
    text = checklist(path, "north")
    assert "rows are chained: none is altered, missing or out of order. The last chain is" in text
    assert f"`{head}`" in text
    path.write_text(path.read_text() + "1,nor")
    assert "out of order. A last line was not written to its end" in checklist(path, "north")
    path.write_text(path.read_text().replace("masked", "public"))
    assert "**The ledger is not as it was written: line 3 was altered" in checklist(path, "north")


def test_another_file_or_site_is_refused(ledgers, tmp_path):
    with pytest.raises(ValueError, match=r"nothing that site 'nowhere' sent: its senders are \['server', 'site0'"):
        written(ledgers["plain"], tmp_path, "nowhere")
    with pytest.raises(ValueError, match="is no privacy ledger: its columns are a"):
        written(pd.DataFrame({"a": [1]}), tmp_path)
    with pytest.raises(FileNotFoundError):
        checklist(tmp_path / "none.csv", "site0")
