"""A coordinator in league with a site knows the sites' key, and publishes sums of its own making."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from attackers import BEGIN, agreed, ask, make_clients
from fedscgen._types import Message
from fedscgen.federation import PolicyError
from fedscgen.secure import AggregationError
from fedscgen.secure._checksum import Checksum
from fedscgen.secure._vector import n_words, unflatten


def set_all(arrays, *_):
    for name in [name for name in arrays if "running_" not in name]:
        arrays[name][...] = np.uint64(2**50)


def forge(server, member, change=set_all):
    """A sum that a site in league with the coordinator makes fit, with weights of the coordinator's own."""
    task = server._program.task
    opened = server._open(task).opened
    membership = member._contributor._membership
    length = n_words(opened.manifest)
    words = opened.words.copy()
    change(unflatten(words[:length], opened.manifest), words[length].astype(np.int64))
    checksum = Checksum(membership.group_key, opened.about(membership.run, task.number, member._contributor._history))
    field = np.uint64(2**31 - 1)
    words[length + 1 :] = (checksum._multiply(words[: length + 1]) + checksum._pads(opened.sites)) % field
    return task.number, replace(opened, words=words).to_message()


def test_a_site_that_has_refused_weights_does_not_go_on_with_them_when_asked_again():
    server, clients = agreed()
    server._perform_all("sums before training")
    number, forged = forge(server, clients[2])
    server._published.add(number, forged)
    question = server._published.enclose({"site0": BEGIN}, None)["site0"].to_bytes()
    with pytest.raises(PolicyError, match="changes the weights by"):
        clients[0].handle(question)
    for again in (question, Message("final weights and references").to_bytes()):
        with pytest.raises(PolicyError, match="the run has ended at this site: sum 3 changes the weights"):
            clients[0].handle(again)


def without_variance(arrays, weight):
    """A unit that cells are told apart by, to the last one: its variance is nothing beside its own scale."""
    for name in [name for name in arrays if name.endswith("running_var")]:
        mean = arrays[name.replace("_var", "_mean")].astype(np.int64) / weight
        arrays[name][...] = np.rint(mean**2 * weight).astype(np.int64).astype(np.uint64)


def with_a_distant_mean(arrays, weight):
    for name in [name for name in arrays if name.endswith("running_mean")]:
        arrays[name][...] = np.uint64(50 * weight)


@pytest.mark.parametrize("change", [without_variance, with_a_distant_mean])
def test_statistics_that_no_sum_with_the_sites_own_gives_are_refused(change):
    """BatchNorm's don't count in how much weights change; by them alone, one could tell cells apart as well."""
    server, clients = agreed()
    server._perform_all("sums before training")
    number, forged = forge(server, clients[2], change)
    server._published.add(number, forged)
    with pytest.raises(PolicyError, match=r"running_var is below what this site alone makes of it"):
        clients[0].handle(server._published.enclose({"site0": BEGIN}, None)["site0"].to_bytes())


def test_a_sum_of_a_name_that_was_used_before_has_other_secrets(tmp_path):
    """A site that was started again doesn't know the name: with the same secrets, two checksums would show a third."""
    server, clients = agreed(make_clients(memory=tmp_path))
    session = server._aggregator._session
    name, name_sum = session.name_sum(), session.name_sum
    opened = []
    for _ in range(2):
        session.name_sum = chain([name], iter(name_sum, None)).__next__
        server._aggregator._advertised = None
        opened.append(ask(server, "sums before training", number=1).opened)
        for client in clients:
            client._contributor._begun.clear()
    first, second = opened
    assert first.sum_id == second.sum_id
    length = n_words(first.manifest) + 1
    np.testing.assert_array_equal(first.words[:length], second.words[:length])
    assert (first.words[length:] != second.words[length:]).all()
    member = clients[0]._contributor
    member._history = ""
    assert member.read_sum(second.to_message(), 1).n_sites == 3
    member._history = ""
    with pytest.raises(AggregationError, match="is not the sum"):
        member.read_sum(replace(second, words=first.words).to_message(), 1)
