"""A site of the network, without the network: its policy, its files, and what it does when something goes wrong."""

import json
import logging
import random
import re
import shutil
import stat
from dataclasses import asdict, replace

import anndata
import numpy as np
import pandas as pd
import pytest

from cells import SMALL
from fedscgen._types import REFUSAL, Message
from fedscgen.deployment import Site, SiteConfig, make_refusal
from fedscgen.deployment._introduction import INTRODUCTION, Proposal
from fedscgen.deployment._runs import SiteRuns
from fedscgen.federation import (
    SERVER,
    FederationSettings,
    InProcessTransport,
    LedgerCheck,
    Plan,
    Server,
    SiteError,
    check_ledger,
)
from fedscgen.model import read_model
from fedscgen.secure import AggregationError, MaskedAggregator
from quick import propose
from wire_messages import mutate

TRAINING = asdict(Proposal("training", "masked", reveals_counts=False, n_sites=3))
SETTINGS = FederationSettings(
    n_rounds=2, n_epochs=1, min_sites=2, reference="mean", model={**SMALL, "linear_path": False}
)


class ToSites(InProcessTransport):
    """Bytes to sites and back; what refuses is left out, as over a network."""

    def __init__(self, sites):
        super().__init__([])
        self.sites_by_name = sites
        self.refusals = {}
        self.silent = set()

    @property
    def sites(self):
        return list(self.sites_by_name)

    def introduce(self, proposal=TRAINING):
        return {name: self._answer(site, Message(INTRODUCTION, proposal)) for name, site in self.sites_by_name.items()}

    def ask(self, messages):
        for name, message in messages.items():
            if name in self.silent and "round" in message.meta:
                continue
            answer = self._answer(self.sites_by_name[name], message)
            if answer.kind == REFUSAL:
                self.refusals[name] = answer.meta["reason"]
            else:
                yield name, answer

    @staticmethod
    def _answer(site, message):
        return Message.from_bytes(site.answer(message.to_bytes()))


@pytest.fixture
def network(cells, make_site):
    def make(**options_of_north):
        return ToSites({name: make_site(name, **(options_of_north if name == "north" else {})) for name in cells})

    return make


def run(transport, settings=SETTINGS):
    with MaskedAggregator() as aggregator:
        server = Server(transport, aggregator, settings)
        server.run()
    return server


def test_every_site_writes_its_results_and_nothing_else(network, cells, tmp_path):
    transport = network()
    assert {name: answer.meta for name, answer in transport.introduce().items()} == {n: {"site": n} for n in cells}
    server = run(transport)
    for name, adata in cells.items():
        folder = tmp_path / name / "run-1"
        assert {path.name for path in folder.iterdir()} == {
            "corrected.h5ad",
            "history.csv",
            "ledger.csv",
            "model",
            "settings.json",
        }
        assert list(anndata.read_h5ad(folder / "corrected.h5ad").obs_names) == list(adata.obs_names)
        saved = read_model(folder / "model")
        assert saved.genes == server.genes
        np.testing.assert_array_equal(saved.references.means, server.references.means)
        assert list(pd.read_csv(folder / "history.csv")["round"]) == [1, 2]
        ledger = pd.read_csv(folder / "ledger.csv")
        assert set(ledger["sender"]) == {name, SERVER}
        assert list(ledger["kind"][:2]) == [INTRODUCTION] * 2
        assert check_ledger(folder / "ledger.csv") == LedgerCheck(len(ledger), ledger["chain"].iloc[-1])
        settings = json.loads((folder / "settings.json").read_text())
        assert FederationSettings(**settings["settings"]) == server.settings
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o600}
        assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "model")} == {0o700}
        assert transport.sites_by_name[name].finished


def test_nobody_puts_other_results_in_the_place_of_a_run_s(network, tmp_path):
    """With a second introduction, a correction by made-up weights would overwrite what the sites have found."""
    transport = network()
    transport.introduce()
    run(transport)
    before = {path: path.read_bytes() for path in tmp_path.rglob("corrected.h5ad")}
    for answer in transport.introduce({**TRAINING, "workflow": "correction"}).values():
        assert answer.kind == REFUSAL
        assert answer.meta["reason"] == "this run has come to its end at the site: begin another one"
    assert len(before) == 3
    assert {path: path.read_bytes() for path in before} == before


def test_a_site_takes_part_in_so_many_runs_and_no_more(cells, tmp_path):
    cells["north"].write_h5ad(tmp_path / "north.h5ad")
    for number in range(1000):
        (tmp_path / f"run-{number}").mkdir()
    runs = SiteRuns(SiteConfig("north", tmp_path / "north.h5ad", tmp_path, accelerator="cpu"))
    answer = Message.from_bytes(runs.answer(1000, Message(INTRODUCTION, TRAINING).to_bytes()))
    assert answer.meta["reason"] == "the site takes part in no new run: its log says why"
    assert not (tmp_path / "run-1000").exists()


def test_a_site_takes_nothing_that_would_fill_its_disk(cells, tmp_path, monkeypatch, caplog):
    cells["north"].write_h5ad(tmp_path / "north.h5ad")
    runs = SiteRuns(SiteConfig("north", tmp_path / "north.h5ad", tmp_path, accelerator="cpu"))
    question = Message(INTRODUCTION, TRAINING).to_bytes()
    monkeypatch.setattr("fedscgen.deployment._runs._LEAST_FREE", shutil.disk_usage(tmp_path).total)
    answer = Message.from_bytes(runs.answer(1, question))
    assert (answer.kind, answer.meta["reason"][:35]) == (REFUSAL, "the site takes no more messages for")
    assert re.search(r"\d+ bytes are free, and \d+ have to stay so", caplog.text)
    assert not (tmp_path / "run-1").exists()


@pytest.mark.parametrize(
    ("options", "proposal", "message"),
    [
        ({}, {"aggregator": "plain"}, "wants to sum with 'plain', but the site allows only 'masked'"),
        ({"aggregators": "plain"}, {"aggregator": "plain"}, "wants to see the site's counts of cells"),
        ({"min_sites": 4}, {}, "wants to sum over n_sites=3, but the site allows sums over 4 or more sites only"),
        ({}, {"reveals_counts": True}, "wants to see the site's counts of cells"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_and_logged(network, options, proposal, message, caplog):
    transport = network(**options)
    answers = transport.introduce({**TRAINING, **proposal})
    assert answers["north"].kind == REFUSAL
    assert message in answers["north"].meta["reason"]
    assert message in caplog.text
    assert transport.sites_by_name["north"].finished, "its process need not wait"


def test_only_sites_that_are_named_take_part_if_any_are(network):
    transport = network()
    answers = transport.introduce({**TRAINING, "sites": ["north", "west"]})
    assert [name for name, answer in answers.items() if answer.kind == REFUSAL] == ["south"]
    assert [site.finished for site in transport.sites_by_name.values()] == [False, True, False]


def test_a_site_holds_the_coordinator_to_a_correction_that_it_announced(network, caplog):
    """A plain correction must be no way around a policy that allows masked sums only."""
    transport = network()
    transport.introduce({**TRAINING, "workflow": "correction", "aggregator": "plain"})
    (answer,) = [transport._answer(transport.sites_by_name["north"], Message("genes and cell types"))]
    assert answer.kind == REFUSAL
    assert "announced a correction, in which nobody asks for 'genes and cell types'" in answer.meta["reason"]
    (answer,) = [
        answer for name, answer in transport.introduce({**TRAINING, "workflow": "espionage"}).items() if name == "north"
    ]
    assert answer.kind == REFUSAL
    assert "unknown workflow 'espionage'" in caplog.text


def test_a_refused_training_leaves_nothing_of_the_correction_before_it(network):
    """The correction's way of summing would answer in the clear."""
    transport = network()
    transport.introduce({**TRAINING, "workflow": "correction", "aggregator": "plain"})
    assert transport.introduce({**TRAINING, "aggregator": "plain"})["north"].kind == REFUSAL
    site = transport.sites_by_name["north"]
    for message in (propose("north", aggregator="plain").to_message(), Message("sums before training")):
        assert transport._answer(site, message).kind == REFUSAL
    assert site._client is None


def test_fewer_sites_in_a_sum_than_a_site_allows_are_refused_though_enough_were_announced(network, caplog):
    """South falls silent after the settings, and a sum over two is left."""
    transport = network(min_sites=3)
    transport.introduce()
    transport.silent.add("south")
    with pytest.raises((AggregationError, SiteError)):
        run(transport)
    assert set(transport.refusals) == {"north"}
    assert "site 'north' refuses a sum over 2 sites: its own min_sites is 3" in caplog.text


def test_what_goes_wrong_at_a_site_is_in_its_log_and_not_on_the_wire(network, cells, caplog):
    cells["north"].obs["cell_type"] = cells["north"].obs["cell_type"].astype(str)
    cells["north"].obs.loc[cells["north"].obs_names[0], "cell_type"] = None
    answer = network().introduce()["north"]
    assert answer.kind == REFUSAL
    assert answer.meta["reason"] == "could not answer 'introduction': the log of site 'north' says why"
    assert "cell_type" in caplog.text


@pytest.mark.filterwarnings("ignore:.*looks like raw", "ignore::RuntimeWarning")
def test_a_site_whose_numbers_are_no_expression_is_left_out(network, cells, caplog):
    cells["north"].X.data[:] = 3e38
    transport = network()
    transport.introduce()
    server = run(transport)
    assert transport.refusals["north"].startswith("could not answer")
    assert "X holds 3e+38, which no expression is: remove or repair such values" in caplog.text
    assert all(np.isfinite(array).all() for array in server.weights.values())
    assert transport.sites_by_name["south"].finished


def test_sites_that_share_no_gene_end_the_run_by_name(network, cells):
    for i, adata in enumerate(cells.values()):
        adata.var_names = [f"{name}-{i}" for name in adata.var_names]
    transport = network()
    transport.introduce()
    with pytest.raises(ValueError, match=r"the sites share no gene .*'north': 'gene0-0'.*use the same gene names"):
        run(transport)


@pytest.mark.parametrize("kind", ["model weights", "final weights and references"])
def test_a_site_that_is_restarted_takes_up_from_its_disk(network, tmp_path, kind, caplog):
    transport = network()
    transport.introduce()

    class Restarting(ToSites):
        def ask(self, messages):
            if kind in {message.kind for message in messages.values()} and self.sites_by_name is not restarted:
                self.sites_by_name = restarted
                restarted["north"] = Site(transport.sites_by_name["north"]._config, tmp_path / "north" / "run-1")
            yield from super().ask(messages)

    restarted = dict(transport.sites_by_name)
    caplog.set_level(logging.WARNING)
    run(Restarting(transport.sites_by_name))
    assert re.search(r"site 'north' takes part in run [0-9a-f]{32} again", caplog.text)
    folder = tmp_path / "north" / "run-1"
    assert np.isfinite(anndata.read_h5ad(folder / "corrected.h5ad").obsm["X_fedscgen"]).all()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_site_that_is_restarted_while_landmarks_are_sought_goes_on(network, tmp_path, caplog):
    transport = network()
    transport.introduce()

    class Restarting(ToSites):
        def ask(self, messages):
            (kind,) = {message.kind for message in messages.values()}
            a_round_is_over = kind == "sums near landmarks" and asked.count(kind) == 3
            if a_round_is_over and self.sites_by_name is not restarted:
                self.sites_by_name = restarted
                restarted["north"] = Site(transport.sites_by_name["north"]._config, tmp_path / "north" / "run-1")
            asked.append(kind)
            yield from super().ask(messages)

    asked, restarted = [], dict(transport.sites_by_name)
    caplog.set_level(logging.WARNING)
    again = Restarting(transport.sites_by_name)
    server = run(again, replace(SETTINGS, n_rounds=1, reference="landmarks"))
    assert again.sites_by_name is restarted
    assert not again.refusals
    assert asked.count("sums near landmarks") == 8 + 1  # once more, since the site has lost its keys for the fourth
    corrected = anndata.read_h5ad(tmp_path / "north" / "run-1" / "corrected.h5ad")
    assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    assert read_model(tmp_path / "north" / "run-1" / "model").references.to_json() == server.references.to_json()


def test_a_site_without_labels_writes_what_others_call_its_cells(network, tmp_path):
    transport = network(labels_key="", min_confidence=0.0)
    transport.introduce()
    server = run(transport, replace(SETTINGS, n_rounds=1, reference="landmarks"))
    obs = anndata.read_h5ad(tmp_path / "north" / "run-1" / "corrected.h5ad").obs
    assert set(obs["fedscgen_cell_type"]) <= set(server.references.labels)
    assert obs["fedscgen_confidence"].between(0, 1).all()
    assert not transport.refusals


def test_a_refusal_says_why():
    assert Message.from_bytes(make_refusal("not today").to_bytes()).meta == {"reason": "not today"}


def test_what_this_version_does_not_know_of_an_introduction_is_refused(network, caplog):
    answer = network().introduce({**TRAINING, "reveals_means": True})["north"]
    assert answer.kind == REFUSAL
    assert "unknown 'reveals-means' in the coordinator's introduction" in caplog.text


def test_damaged_introductions_are_read_or_refused_and_nothing_else_happens():
    draw, data = random.Random(0), Message(INTRODUCTION, {**TRAINING, "sites": ["north", "west"]}).to_bytes()  # noqa: S311  (nothing secret)
    n_refused = 0
    for _ in range(1000):
        try:
            Proposal.from_message(Message.from_bytes(mutate(data, [data], draw)))
        except ValueError:
            n_refused += 1
    assert n_refused > 500


def test_garbage_is_refused(network):
    north = network().sites_by_name["north"]
    for data in (b"", b"garbage", Message("who are you?").to_bytes(), Message(INTRODUCTION, {}).to_bytes()):
        assert Message.from_bytes(north.answer(data)).kind == REFUSAL


def test_hashed_labels_leave_under_no_name(network, cells, tmp_path):
    salt = tmp_path / "salt"
    salt.write_text("a long secret of all sites\n")
    transport = network(label_salt_file=str(salt))
    transport.introduce()
    with pytest.raises(ValueError, match="sites north hash their cell types and sites south, west don't"):
        run(transport)


@pytest.mark.filterwarnings("ignore:.*cells stay where they are:UserWarning")
def test_a_site_s_map_names_its_types_as_the_federation_does(network, cells, tmp_path):
    (tmp_path / "labels.toml").write_text("[labels]\ntype0 = 'common'\n")
    transport = network(label_map=str(tmp_path / "labels.toml"))
    transport.introduce()
    run(transport, replace(SETTINGS, n_rounds=1))
    corrected = anndata.read_h5ad(tmp_path / "north" / "run-1" / "corrected.h5ad")
    own = cells["north"].obs["cell_type"].astype(str)
    assert list(corrected.obs["cell_type"]) == list(own)
    assert list(corrected.obs["fedscgen_common_type"]) == list(own.replace("type0", "common"))


def test_a_site_that_is_restarted_in_a_correction_can_be_asked_again(make_site, tmp_path):
    """Nothing was kept of it, and nothing that was kept must keep the site from beginning anew."""
    plan = Plan("0" * 32, "correction", FederationSettings(seed=0, model=SMALL), "plain", False, ("north",))
    introduction = {**TRAINING, "workflow": "correction", "n_sites": 1, "sites": []}
    settings = {"genes": [f"gene{i}" for i in range(30)], "labels": [], "min_holders": 2, "n_cells_at_most": {}}
    settings |= {"introductions": {}, "plan": plan.to_json()}
    for _ in range(2):
        site = make_site("north")
        for message in (Message("introduction", introduction), Message("settings", settings)):
            answer = Message.from_bytes(site.answer(message.to_bytes()))
            assert answer.kind == message.kind, answer.meta
