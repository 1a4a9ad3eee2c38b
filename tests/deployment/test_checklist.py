"""The data-protection officer's list, from the ledger of a real federation."""

import pandas as pd
import pytest

from cells import make_adata
from fedscgen.deployment import checklist
from fedscgen.secure import Protection
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


def test_another_file_or_site_is_refused(ledgers, tmp_path):
    with pytest.raises(ValueError, match=r"nothing that site 'nowhere' sent: its senders are \['server', 'site0'"):
        written(ledgers["plain"], tmp_path, "nowhere")
    with pytest.raises(ValueError, match="is no privacy ledger: its columns are a"):
        written(pd.DataFrame({"a": [1]}), tmp_path)
    with pytest.raises(FileNotFoundError):
        checklist(tmp_path / "none.csv", "site0")
