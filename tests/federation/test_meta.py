"""What the meta of a message may hold: every kind that is sent passes, everything else is refused by name."""

import re

import numpy as np
import pytest

from cells import make_adata
from fedscgen._types import Message, WireFormatError
from fedscgen.federation import FederationSettings, Server, SiteError, _meta, check_answer, check_question
from fedscgen.secure import (
    AggregatorKind,
    MaskedAggregator,
    PlainAggregator,
    PlainContributor,
    aggregator_names,
    find_aggregator,
    register_aggregator,
)
from quick import QUICK, simulate
from wire_messages import read_mutated, record_messages

DESCRIBE, SET_UP, TRAIN, LANDMARKS = "genes and cell types", "settings", "model weights", "sums near landmarks"
DESCRIPTION = {
    "genes": ["g1"],
    "labels": ["a"],
    "hashed": False,
    "complete": True,
    "min_holders": 2,
    "n_cells_at_most": 8,
    "introduction": {},
    "n_sums": None,
}


@pytest.mark.parametrize("secure", ["plain", "masked", "crypten"])
def test_every_kind_that_is_asked_is_checked(secure):
    if secure == "crypten":
        pytest.importorskip("omegaconf")
    ledger = simulate(make_adata(), secure=secure, **QUICK).ledger
    asked = set(ledger.query("sender == 'server'")["kind"])
    assert asked <= set(_meta._QUESTIONS)
    assert asked <= set(_meta._ANSWERS)


def test_all_kinds_of_messages_are_recorded_for_the_checks_of_the_wire():
    assert {question.kind for question, _ in record_messages()} == set(_meta._QUESTIONS)


def changed(kind, **meta):
    """A recorded question of this kind, with these entries instead of its own; None leaves one out."""
    question = next(question for question, _ in record_messages() if question.kind == kind)
    entries = {**question.meta, **meta}
    return Message(kind, {name: value for name, value in entries.items() if value is not ...}, question.arrays)


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        (lambda: changed(DESCRIBE, sites=...), "message 'genes and cell types': 'sites' is missing"),
        (lambda: changed(DESCRIBE, workflow=["training"]), "'workflow' is list of 1: expected one of"),
        (lambda: changed(DESCRIBE, spy=1), "unknown entry 'spy': there are run, workflow, settings, aggregator"),
        (lambda: changed(SET_UP, genes=5), "'genes' is int: expected a list of at most 200000"),
        (lambda: changed(SET_UP, genes=["a", "a"]), "a list of texts that all differ"),
        (lambda: changed(SET_UP, genes=["a" * 201]), "text of at most 200 characters (item 0 is none)"),
        (lambda: changed(SET_UP, genes=[["a"]]), "text of at most 200 characters (item 0 is none)"),
        (lambda: changed(SET_UP, min_holders=0), "'min_holders' is int: expected a whole number from 1"),
        (lambda: changed(SET_UP, min_holders=True), "'min_holders' is bool: expected a whole number"),
        (lambda: changed(TRAIN, round=...), "'round' is missing"),
        (lambda: changed(TRAIN, round="1"), "'round' is str of 1: expected a whole number from 1"),
        (lambda: changed(TRAIN, task="your cells"), "'task' is str of 10: expected one of model weights"),
        (lambda: changed(TRAIN, masking={"session": "a"}), "'masking' is dict of 1: expected a table: session, sum"),
        (lambda: changed(TRAIN, protection=["x"]), "'protection' is list of 1: expected one of none, public"),
        (lambda: changed("mask public keys", masking=7), "'masking' is int: expected a table"),
        (lambda: changed(LANDMARKS, opened={}), "'opened' is dict of 0: expected a list of at most 100000"),
        (lambda: changed(LANDMARKS, opened=[0]), "'opened' is list of 1"),
        (lambda: changed(LANDMARKS, number="1"), "'number' is str of 1: expected a whole number from 1"),
        (lambda: changed(LANDMARKS, labels=["a"]), "unknown entry 'labels'"),
        (lambda: changed(LANDMARKS, step="means", landmarks={"kind": 1}), "unknown entry 'landmarks'"),
        (lambda: changed("final weights and references", references={"labels": 5}), "has no 'kind'"),
        (lambda: Message("another package's", {"round": "abc"}), "'round' is str of 3"),
        (lambda: Message("another package's", {"protection": 1}), "'protection' is int"),
    ],
)
def test_a_site_refuses_what_is_no_question_of_its_kind(question, fault):
    with pytest.raises(WireFormatError, match=re.escape(fault)):
        check_question(question())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"genes": ...}, "'genes' is missing"),
        ({"genes": 5}, "'genes' is int: expected a list of at most 200000"),
        ({"genes": [f"x{i}" for i in range(200_001)]}, "'genes' is list of 200001: expected a list of at most 200000"),
        ({"labels": [["x"]]}, "'labels' is list of 1: expected a list of text of at most 200 characters"),
        ({"labels": [f"x{i}" for i in range(10_001)]}, "'labels' is list of 10001"),
        ({"labels": ["x" * 201]}, "text of at most 200 characters (item 0 is none)"),
        ({"hashed": 1}, "'hashed' is int: expected true or false"),
        ({"min_holders": 0}, "'min_holders' is int: expected a whole number from 1"),
        ({"round": "abc"}, "'round' is str of 3"),
        ({"cells": [[1.0]]}, "unknown entry 'cells'"),
    ],
)
def test_a_site_that_answers_otherwise_ends_the_run_by_name(change, fault):
    bad = {name: value for name, value in {**DESCRIPTION, **change}.items() if value is not ...}

    class TwoSites:
        sites = ("A", "B")

        def ask(self, messages):
            for site in messages:
                yield site, Message(DESCRIBE, bad if site == "B" else DESCRIPTION)

    with pytest.raises(
        SiteError, match=f"site 'B' answered with what is no answer to 'genes and cell types': .*{re.escape(fault)}"
    ):
        Server(TwoSites(), MaskedAggregator(), FederationSettings()).agree()


def test_an_answer_of_another_kind_is_refused():
    with pytest.raises(WireFormatError, match="'hello', which is no answer to 'settings'"):
        check_answer(Message(SET_UP), Message("hello", {"ready": True}))
    check_answer(Message(TRAIN), Message("masked model weights", {"manifest": [["w", [3]]]}))
    for manifest in (5, [["w"]], [["w", [2**40]]], [["w", [-1]]], [[1, [1]]]):
        with pytest.raises(WireFormatError, match="'manifest' is"):
            check_answer(Message(TRAIN), Message("masked model weights", {"manifest": manifest}))


class NotedContributor(PlainContributor):
    def contribute(self, contribution, task):
        assert task.meta["note"] == [1, 2]
        answer = super().contribute(contribution, task)
        return Message(answer.kind, {**answer.meta, "note": "seen"}, answer.arrays)


class NotedAggregator(PlainAggregator):
    name = "noted"

    def contributor(self, site):
        return NotedContributor()

    def sum(self, ask, sites, task, **options):
        task = Message(task.kind, {**task.meta, "note": [1, 2]}, task.arrays)
        return super().sum(ask, sites, task, **options)


def test_an_aggregator_of_another_package_adds_the_entries_that_it_has_named(monkeypatch):
    adata = make_adata()
    with pytest.raises(SiteError, match="unknown entry 'note': there are task"):
        simulate(adata, secure=NotedAggregator(), **QUICK)
    kinds = {name: find_aggregator(name) for name in aggregator_names()}
    kind = AggregatorKind(
        aggregator=lambda *, n_sites, reveal_keys: NotedAggregator(),
        contributor=lambda site, *, reveal_keys, min_sites: NotedContributor(),
        shows_terms=True,
        star=True,
        summary="with notes",
        entries=("note",),
    )
    monkeypatch.setattr("fedscgen.secure._registry._AGGREGATORS._values", kinds)
    register_aggregator("noted", kind)
    assert np.isfinite(simulate(adata, secure="noted", **QUICK).history["federation_loss"]).all()


def test_damaged_messages_of_all_kinds_are_refused_and_nothing_else_happens():
    outcomes = read_mutated(2000)
    assert set(outcomes) == {"read", "WireFormatError"}
    assert outcomes["WireFormatError"] > 1000
