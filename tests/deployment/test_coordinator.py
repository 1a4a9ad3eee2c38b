"""The coordinator's program over a carrier to sites of this process, which may be disturbed."""

import fcntl
import logging
import re
import resource
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

from fedscgen._types import Message
from fedscgen.deployment import Failure, InProcessCarrier, _transport, coordinate
from fedscgen.federation import SiteError
from fedscgen.model import SavedModel, read_model, write_model
from fedscgen.prepare import read_label_map
from fedscgen.secure import AggregationError, PlainAggregator, find_aggregator, register_aggregator
from site_programs import round_asked_for


class DisturbedCarrier(InProcessCarrier):
    """Sites by address, which is "at NAME".

    ``disturb`` is called before every message reaches its site, with address and message, and may answer instead;
    ``alter`` changes what a site answers.
    """

    def __init__(self, sites):
        self.sites = {f"at {name}": site for name, site in sites.items()}
        self.disturb = lambda address, message: None
        self.alter = lambda address, answer: answer
        super().__init__(self.sites)

    def exchange(self, letters, timeout):
        for address, data in letters.items():
            answer = self.disturb(address, Message.from_bytes(data))
            if answer is None:
                ((_, answer),) = super().exchange({address: data}, timeout)
                if not isinstance(answer, Failure):
                    answer = self.alter(address, Message.from_bytes(answer)).to_buffer()
            if answer != "silence":
                yield address, answer


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(_transport, "_LOOK_SECONDS", 0.01)


@pytest.fixture
def carrier(make_site):
    return DisturbedCarrier({name: make_site(name) for name in ("north", "south", "west")})


@pytest.fixture
def run(carrier, configure):
    """Runs the coordinator's program with these entries of its configuration."""
    return lambda **options: coordinate(carrier, configure(**options))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "coordinator"


def rounds_of(output, site):
    """Rounds in which a site's weights were in the sum."""
    ledger = pd.read_csv(output / "ledger-training.csv")
    return set(ledger.query("kind == 'masked model weights' and sender == @site")["round"])


def test_a_training_and_then_a_newcomer(carrier, run, output, make_site, tmp_path):
    newcomer = carrier.sites.pop("at west")
    run(n_sites=2)
    assert {path.name for path in output.iterdir()} == {"model", "history.csv", "ledger-training.csv", ".lock"}
    saved = read_model(output / "model")
    assert saved.references.labels == ("type0", "type1", "type2", "type3")
    assert np.isfinite(saved.references.positions).all()
    history = pd.read_csv(output / "history.csv")
    assert list(history["round"]) == [1, 2]
    assert np.isfinite(history["federation_loss"]).all()
    assert carrier.sites["at north"].finished
    assert not newcomer.finished
    with pytest.raises(FileExistsError, match="choose another output, or move the model away"):
        run(n_sites=2)

    carrier.sites.clear()
    carrier.sites["at west"] = make_site("west", run=2)
    run(workflow="correction", trained_model=str(output / "model"), n_sites=1, min_sites=1)
    corrected = anndata.read_h5ad(tmp_path / "west" / "run-2" / "corrected.h5ad")
    assert np.isfinite(corrected.obsm["X_fedscgen"]).all()
    assert corrected.obs["fedscgen_confidence"].between(0, 1).all()
    ledger = pd.read_csv(output / "ledger-correction.csv")
    assert set(ledger["receiver"]) == {"server", "west", "at west"}


def test_a_training_begins_with_a_model_whose_path_stays_with_the_coordinator(
    carrier, run, output, make_site, tmp_path
):
    run(n_rounds=1)
    (output / "model").rename(tmp_path / "first_model")
    for name in ("north", "south", "west"):
        carrier.sites[f"at {name}"] = make_site(name, run=2)
    with pytest.raises(SiteError, match=r"wants to begin with weights of SHA-256 .*change init_models") as refused:
        run(n_rounds=1, init_model=str(tmp_path / "first_model"))
    (allowed,) = set(re.findall("SHA-256 ([0-9a-f]{64})", str(refused.value)))
    for name in ("north", "south", "west"):
        carrier.sites[f"at {name}"] = make_site(name, run=3, init_models=[allowed])
    seen = []
    carrier.disturb = lambda address, message: seen.append(bytes(message.to_buffer()))
    run(n_rounds=1, lr=1e-7, seed=9, init_model=str(tmp_path / "first_model"))
    first, last = (read_model(folder).weights for folder in (tmp_path / "first_model", output / "model"))
    np.testing.assert_allclose(last["decoder.output.weight"], first["decoder.output.weight"], atol=1e-4)
    assert seen
    assert not any(b"first_model" in data for data in seen)


def test_an_initial_model_that_is_not_there_is_told_before_sites_are_waited_for(carrier, run, tmp_path):
    carrier.sites.clear()
    with pytest.raises(FileNotFoundError, match=r"init_model=.*absent: there is no such folder or file"):
        run(init_model=str(tmp_path / "absent"))


def test_the_ledgers_of_both_ends_agree(run, output, tmp_path):
    run()
    coordinator = pd.read_csv(output / "ledger-training.csv").drop(columns=["settings", "chain"])
    for site in ("north", "south", "west"):
        own = pd.read_csv(tmp_path / site / "run-1" / "ledger.csv").drop(columns=["settings", "chain"])
        sent, arrived = own[own["sender"] == site], coordinator[coordinator["sender"] == site]
        pd.testing.assert_frame_equal(sent.reset_index(drop=True), arrived.reset_index(drop=True))
        assert set(sent["protection"]) <= {"none", "public", "encrypted", "masked", "shares"}
        assert set(sent.loc[sent["protection"] == "none", "shape"]) <= {"names and settings"}


def test_a_tuned_federation_trains_as_its_settings_say(run, output):
    run(n_rounds=3, early_stopping_patience=1, lr=0.5, batchnorm="local", server_optimizer="adam")
    saved = read_model(output / "model")
    assert saved.model["n_latent"] == saved.references.positions.shape[1] == 4
    assert "validation loss" in set(pd.read_csv(output / "ledger-training.csv")["kind"])


def test_a_check_tells_what_stands_in_the_way_and_then_sites_train(carrier, run, output, make_site, cells, tmp_path):
    cells["south"].obs["cell_type"] = cells["south"].obs["cell_type"].astype(str).replace("type1", "Type1 cells")
    carrier.sites["at south"] = make_site("south", run=2)
    carrier.sites["at west"] = make_site("west", run=2, aggregators="plain", reveal_counts=True)
    run(workflow="check")
    assert {path.name for path in output.iterdir()} == {
        "check.html", "check.txt", "labels.toml", "ledger-check.csv", ".lock"
    }  # fmt: skip
    text = (output / "check.txt").read_text()
    assert "obstacle: west would refuse: the federation wants to sum with 'masked', but the site allows only " in text
    assert "obstacle: 'Type1 cells' looks like 'type1'" in text
    assert read_label_map(output / "labels.toml") == {"Type1 cells": "type1"}
    assert read_label_map(tmp_path / "south" / "run-2" / "labels.toml") == {"Type1 cells": "type1"}
    ledger = pd.read_csv(output / "ledger-check.csv")
    assert list(ledger["kind"].unique()) == ["introduction", "what a site has", "names in use"]
    assert not list((tmp_path / "south" / "run-2").glob(".*.message"))
    assert "&#x27;Type1 cells&#x27; looks like" in (tmp_path / "south" / "run-2" / "check.html").read_text()
    label_map = tmp_path / "south" / "run-2" / "labels.toml"
    for name in ("south", "west"):
        carrier.sites[f"at {name}"] = make_site(name, run=3, label_map=str(label_map) if name == "south" else "")
    run()
    assert read_model(output / "model").references.labels == ("type0", "type1", "type2", "type3")


def test_a_site_that_takes_part_in_no_check_is_in_its_table(carrier, run, output, make_site):
    carrier.sites["at west"] = make_site("west", run=2, workflows="training")
    with pytest.raises(SiteError, match="west: the federation wants to run a check, but the site allows training onl"):
        run(workflow="check", join_timeout=0.5, min_sites=3)
    run(workflow="check", join_timeout=0.5, min_sites=2)
    assert (
        "takes no part: the federation wants to run a check, but the site allows tr"
        in (output / "check.txt").read_text()
    )


def test_a_check_of_raw_counts_says_so(carrier, run, output, make_site, cells):
    cells["west"].X.data = np.ceil(cells["west"].X.data * 50)
    carrier.sites["at west"] = make_site("west", run=2)
    run(workflow="check")
    assert "obstacle: west: raw counts" in (output / "check.txt").read_text()


def test_a_check_says_where_no_result_could_be_written(run, output):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))  # bytes of a file
    try:
        run(workflow="check")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = (output / "check.txt").read_text()
    assert "obstacle: north would refuse: its result could not be written: the site's log says why" in text
    assert "room" not in text


def test_sites_choose_genes_together(carrier, run, output, tmp_path):
    """Weights come from sums over them, so that only the genes' names and number tell."""
    run(n_top_genes=12, gene_list="gene1, gene2, gene3, " + ", ".join(f"gene{i}" for i in range(9, 29)))
    saved = read_model(output / "model")
    assert len(saved.genes) == 12
    assert not set(saved.genes) & {"gene0", "gene4", "gene29"}
    corrected = anndata.read_h5ad(tmp_path / "west" / "run-1" / "corrected.h5ad")
    assert list(corrected.var_names) == saved.genes
    assert "masked sums about genes" in set(pd.read_csv(output / "ledger-training.csv")["kind"])


def test_a_coordinator_that_dies_after_the_genes_were_chosen_goes_on_with_these(carrier, run, output, tmp_path):
    def die_in_round_1(address, message):
        if message.meta.get("round") == 1:
            raise KeyboardInterrupt

    carrier.disturb = die_in_round_1
    with pytest.raises(KeyboardInterrupt):
        run(n_top_genes=12)
    assert [path.name for path in (output / "run").glob("sum-*")] == ["sum-00001"]
    asked = []
    carrier.disturb = lambda address, message: asked.append(message.kind)
    run(n_top_genes=12)
    assert "sums about genes" not in asked
    assert "model weights" in asked
    saved = read_model(output / "model")
    assert len(saved.genes) == 12
    for name in ("north", "south", "west"):
        corrected = anndata.read_h5ad(tmp_path / name / "run-1" / "corrected.h5ad")
        assert list(corrected.var_names) == saved.genes
    assert set(pd.read_csv(output / "ledger-training.csv")["kind"]) >= {"masked sums about genes"}


def test_plain_sums_need_the_sites_consent(carrier, run, output, make_site, caplog):
    with pytest.raises(SiteError, match="wants to sum with 'plain', but the site allows only 'masked'"):
        run(secure="plain", join_timeout=0.5)
    for name in ("north", "south", "west"):
        carrier.sites[f"at {name}"] = make_site(name, run=2, aggregators="plain", reveal_counts=True)
    run(secure="plain", reference="dominant")
    assert "the coordinator sees what every site contributes" in caplog.text
    assert read_model(output / "model").references.kind == "dominant"


def test_only_one_run_writes_to_an_output(carrier, run, output):
    output.mkdir()
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another run is writing"):
            run()
    assert not any(site.finished for site in carrier.sites.values())
    run()


def test_a_coordinator_that_dies_goes_on_after_the_last_finished_round(carrier, run, output, caplog):
    def die_in_round_2(address, message):
        if message.meta.get("round") == 2:
            raise KeyboardInterrupt

    carrier.disturb = die_in_round_2
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyboardInterrupt):
        run(n_rounds=3)
    assert {path.name for path in output.iterdir()} == {"run", "ledger-training.csv", ".lock"}
    carrier.disturb = lambda address, message: None
    run(n_rounds=3)
    assert re.search(r"goes on with run [0-9a-f]{32} after \d+ opened sums", caplog.text)
    assert len(pd.read_csv(output / "history.csv")) == 3
    assert rounds_of(output, "north") == {1, 2, 3}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Failure("no memory"), "no memory"), (b"garbage", "answered with"), ("silence", "no answer in time")],
)
def test_a_site_that_fails_in_a_round_is_left_out_of_it(carrier, run, output, caplog, answer, reason):
    carrier.disturb = lambda address, message: (
        answer if round_asked_for(message) == 1 and address == "at south" else None
    )
    run()
    assert f"south is left out: {reason}" in caplog.text
    assert rounds_of(output, "south") == {2}
    assert rounds_of(output, "north") == {1, 2}


def test_a_site_that_is_gone_takes_part_when_it_is_back(carrier, run, output, caplog):
    south = carrier.sites["at south"]

    def disturb(address, message):
        if round_asked_for(message) == 1 and address == "at south":
            del carrier.sites[address]
        if message.meta.get("round") == 3:
            carrier.sites["at south"] = south

    carrier.disturb = disturb
    run(n_rounds=4)
    assert "south is left out: not connected" in caplog.text
    assert rounds_of(output, "south") == {3, 4}
    assert south.finished


def test_a_sum_of_another_shape_ends_the_run_by_name_and_keeps_what_was_finished(carrier, run, output):
    def shorten(address, answer):
        if address != "at south" or answer.kind != "masked model weights" or answer.meta["round"] != 2:
            return answer
        return Message(answer.kind, answer.meta, {"masked": answer.arrays["masked"][:-1]})

    carrier.alter = shorten
    with pytest.raises(AggregationError, match=r"site 'south' contributed no vector of .*nothing was opened"):
        run()
    assert {path.name for path in output.iterdir()} == {"run", "ledger-training.csv", ".lock"}


def test_a_site_whose_answer_is_protected_in_an_unknown_way_is_left_out(carrier, run, output, caplog):
    def relabel(address, answer):
        if address != "at south" or answer.kind != "masked model weights" or answer.meta["round"] != 1:
            return answer
        return Message(answer.kind, {**answer.meta, "protection": "magic"}, answer.arrays)

    carrier.alter = relabel
    run()
    assert "south is left out: answered with what is no answer to 'model weights': 'protection' is str" in caplog.text
    assert rounds_of(output, "south") == {2}


def test_an_aggregator_of_another_package_is_used_by_its_name(run, make_site, carrier, output, caplog):
    class LoggedAggregator(PlainAggregator):
        name = "logged"

    logged = replace(find_aggregator("plain"), aggregator=lambda **_: LoggedAggregator(), summary="as plain")
    register_aggregator("logged", logged, overwrite=True)
    options = {"run": 2, "aggregators": "logged, masked", "reveal_counts": True}
    carrier.sites.clear()
    carrier.sites.update({f"at {name}": make_site(name, **options) for name in ("north", "south")})
    run(secure="logged", n_sites=2, reference="dominant")
    assert "secure='logged': the coordinator sees what every site contributes" in caplog.text
    ledger = pd.read_csv(output / "ledger-training.csv")
    assert set(ledger["protection"]) == {"none"}
    assert carrier.sites["at north"].finished


def test_a_run_with_too_few_sites_left_says_why_each_has_gone(carrier, run, output):
    carrier.disturb = lambda address, message: (
        Failure("no memory") if "round" in message.meta and address != "at west" else None
    )
    with pytest.raises((AggregationError, SiteError), match="north: no memory; south: no memory"):
        run()
    assert not (output / "model").exists()


def test_what_was_trained_is_kept_where_sites_cannot_correct_their_cells(carrier, run, output):
    last = "final weights and references"
    carrier.disturb = lambda address, message: Failure("the disk is full") if message.kind == last else None
    with pytest.raises(SiteError, match=r"what was trained is in .*model.* 'correction'.*south: the disk is full"):
        run()
    assert read_model(output / "model").references.labels == ("type0", "type1", "type2", "type3")
    assert len(pd.read_csv(output / "history.csv")) == 2


def test_two_sites_of_one_name_are_told_apart(carrier, run, make_site, caplog):
    carrier.sites["beside north"] = make_site("north", run=2)
    run()
    expected = "beside north is left out: calls itself 'north', as another does: give each site a name of its own"
    assert expected in caplog.text
    assert not carrier.sites["beside north"].finished


@pytest.mark.parametrize("answer", [Message("introduction"), Message("introduction", {"site": 5}), Message("hello")])
def test_who_does_not_say_its_name_is_left_out(carrier, run, caplog, answer):
    carrier.disturb = lambda address, message: answer.to_bytes() if address == "at south" else None
    run(join_timeout=0.5)
    assert f"at south is left out: answered with {answer.kind!r} that names no site" in caplog.text


def test_sites_that_refuse_or_are_missing_are_named_when_the_time_is_over(carrier, run, make_site):
    carrier.sites.clear()
    carrier.sites.update(north=make_site("north", run=2), south=make_site("south", run=2, min_sites=4))
    with pytest.raises(SiteError, match=r"1 of 3 sites have joined within 0.5 s \(north\).*4 or more sites only"):
        run(join_timeout=0.5)


def test_it_begins_with_fewer_sites_than_hoped_for_if_they_are_enough(carrier, run, output, caplog):
    del carrier.sites["at west"]
    run(join_timeout=0.5)
    assert "begins with 2 of 3 sites: north, south" in caplog.text
    assert (output / "model").exists()


def test_a_site_of_one_cell_takes_no_part_and_the_others_go_on(
    carrier, run, output, cells, make_site, tmp_path, caplog
):
    cells["west"] = cells["west"][:1].copy()
    carrier.sites["at west"] = make_site("west", run=2)
    run(join_timeout=0.5)
    assert "1 cell is too few to train on: at least 4 are needed" in caplog.text
    assert "at west is left out: could not answer 'introduction': the log of site 'west' says why" in caplog.text
    assert {path.parts[-3] for path in tmp_path.glob("*/run-*/corrected.h5ad")} == {"north", "south"}


def test_a_correction_needs_a_model_with_references(carrier, run, tmp_path):
    write_model(tmp_path / "model", SavedModel({}, [], None, {}, architecture="another"))
    with pytest.raises(ValueError, match="model holds no references: name what a training has written"):
        run(workflow="correction", trained_model=str(tmp_path / "model"))
    assert not any(site.finished for site in carrier.sites.values())


def test_only_sites_that_are_named_take_part(carrier, run, output):
    run(sites="north, west", n_sites=2)
    assert rounds_of(output, "north") == {1, 2}
    assert not rounds_of(output, "south")
