"""What a site decides for itself: its policy, its ledger on disk, and taking part again after a restart."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cells import SMALL, make_adata
from fedscgen._types import Message
from fedscgen.federation import (
    FederationSettings,
    InProcessTransport,
    PolicyError,
    PrivacyLedger,
    Server,
    SitePolicy,
)
from fedscgen.secure import PlainAggregator
from quick import make_client

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
    pd.testing.assert_frame_equal(on_disk, ledger.to_frame(), check_dtype=False)
    assert len(on_disk) == 2 * (2 + 7 + 2 + 12 + 1), "to agree, principal components, rounds, landmarks, correction"


def test_what_left_a_site_is_on_disk_though_its_process_dies_at_once(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from fedscgen import Message; "
        "from fedscgen.federation import PrivacyLedger; "
        "PrivacyLedger(Path(sys.argv[1])).record('site', 'server', Message(sys.argv[2]), 7); os._exit(9)"
    )
    for kind in ("first, with a comma", "second"):
        assert subprocess.run([sys.executable, "-c", code, tmp_path / "ledger.csv", kind]).returncode == 9  # noqa: S603
    on_disk = pd.read_csv(tmp_path / "ledger.csv")
    assert list(on_disk["kind"]) == ["first, with a comma", "second"], "one header, and rows of both processes"
    assert list(on_disk["bytes"]) == [7, 7]


def test_nothing_leaves_a_site_that_cannot_keep_its_ledger(adata, tmp_path):
    _, (client, *_) = federation(adata, ledger=PrivacyLedger(tmp_path))
    with pytest.raises(OSError, match=str(tmp_path)):
        client.handle(Message("genes and cell types").to_bytes())


class Restarting(InProcessTransport):
    """Replaces a site's client by a new one that knows no more than the set-up message, before the second round."""

    def __init__(self, clients, successor):
        super().__init__(clients)
        self.successor = successor

    def ask(self, messages):
        for site, message in messages.items():
            if site == self.successor.site and message.kind == "settings":
                self.agreed = message
            if site == self.successor.site and message.kind == "model weights" and message.meta["round"] == 2:
                self.successor.resume(self.agreed)
                self._clients[site] = self.successor
        yield from super().ask(messages)


def test_a_site_that_was_restarted_takes_part_again():
    adata = make_adata()
    server, (client, *others) = federation(adata)
    _, (successor, *_) = federation(adata)
    server._transport = Restarting([client, *others], successor)
    server.run()
    assert client.corrected is None
    assert {row["round"] for row in successor.history} == {2}
    assert np.isfinite(successor.corrected.obsm["X_fedscgen"]).all()
    assert successor.model.genes == server.genes
    kinds = list(successor.ledger.to_frame()["kind"])
    assert kinds[:2] == ["model weights"] * 2, "resuming is on no ledger, as nothing left the site"


def test_a_site_resumes_from_nothing_but_a_set_up_message(adata):
    _, (client, *_) = federation(adata)
    with pytest.raises(ValueError, match="a site resumes from a message of kind 'settings', not 'model weights'"):
        client.resume(Message("model weights"))
