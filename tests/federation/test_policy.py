"""What a site decides for itself: its policy, and its ledger on disk."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from cells import SMALL
from fedscgen.federation import (
    FederationSettings,
    InProcessTransport,
    PolicyError,
    PrivacyLedger,
    Server,
    SitePolicy,
)
from fedscgen.secure import PlainAggregator
from quick import make_client, propose

SETTINGS = FederationSettings(n_rounds=2, n_epochs=1, model=SMALL)
REMEDY = "the site itself must change"


def federation(adata, **options):
    """A server and its clients; ``options`` are those of the first."""
    aggregator = PlainAggregator()
    clients = [
        make_client(
            site,
            adata[adata.obs["batch"] == site].copy(),
            aggregator.contributor(site),
            **(options if site == "site0" else {}),
        )
        for site in adata.obs["batch"].cat.categories
    ]
    return Server(InProcessTransport(clients), aggregator, SETTINGS), clients


def test_a_policy_allows_what_it_names():
    SitePolicy().check("masked", reveals_counts=False, n_sites=2)
    SitePolicy().check("crypten", reveals_counts=False, n_sites=9)
    SitePolicy(("plain",), reveal_counts=True, min_sites=1).check("plain", reveals_counts=True, n_sites=1)


@pytest.mark.parametrize(
    ("policy", "asked", "message"),
    [
        (SitePolicy(), ("plain", False, 3), "sum with 'plain', but the site allows only 'masked' or 'crypten'"),
        (SitePolicy(("masked",)), ("crypten", False, 3), "sum with 'crypten', but the site allows only 'masked'"),
        (SitePolicy(("plain",)), ("plain", False, 3), "see the site's counts of cells, but the site allows no one"),
        (SitePolicy(), ("masked", True, 3), "see the site's counts of cells, but the site allows no one to see them"),
        (SitePolicy(min_sites=4), ("masked", False, 3), "sum over n_sites=3, but the site allows sums over 4 or more"),
    ],
)
def test_a_policy_refuses_the_rest_and_says_who_must_change_it(policy, asked, message):
    aggregator, reveals_counts, n_sites = asked
    with pytest.raises(PolicyError, match=f"{re.escape(message)}.*{REMEDY}"):
        policy.check(aggregator, reveals_counts=reveals_counts, n_sites=n_sites)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"aggregators": ("masked", "trust me")}, "unknown aggregator 'trust me': choose one of"),
        ({"aggregators": ()}, "name at least one"),
        ({"min_sites": 0}, "min_sites=0: at least 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SitePolicy(**given)


def test_a_ledger_on_disk_equals_the_one_in_memory(adata, tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.csv")
    server, (client, *_) = federation(adata, ledger=ledger)
    server.run()
    assert client.ledger is ledger
    on_disk = pd.read_csv(tmp_path / "ledger.csv", dtype={"round": "Int64"})
    pd.testing.assert_frame_equal(on_disk[PrivacyLedger.columns], ledger.to_frame(), check_dtype=False)
    assert len(on_disk) == 2 * (2 + 2 + 2 + 1 + 8 + 1), "to agree, components, rounds, holders, landmarks, correction"


def test_what_left_a_site_is_on_disk_though_its_process_dies_at_once(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from fedscgen import Message; "
        "from fedscgen.federation import PrivacyLedger; "
        "PrivacyLedger(Path(sys.argv[1])).record('site', 'server', Message(sys.argv[2]), b'7 bytes'); os._exit(9)"
    )
    for kind in ("first, with a comma", "second"):
        assert subprocess.run([sys.executable, "-c", code, tmp_path / "ledger.csv", kind]).returncode == 9  # noqa: S603
    on_disk = pd.read_csv(tmp_path / "ledger.csv")
    assert list(on_disk["kind"]) == ["first, with a comma", "second"], "one header, and rows of both processes"
    assert list(on_disk["bytes"]) == [7, 7]


def test_nothing_leaves_a_site_that_cannot_keep_its_ledger(adata, tmp_path):
    _, (client, *_) = federation(adata, ledger=PrivacyLedger(tmp_path))
    with pytest.raises(OSError, match=str(tmp_path)):
        client.handle(propose().to_message().to_bytes())
