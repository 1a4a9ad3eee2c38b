"""A coordinator, and a site in league with it, who use the time before a site has the group's key."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.federation import InProcessTransport, SiteError, SitePolicy
from quick import propose

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from attackers import BEGIN, SETTINGS, SITES, Lying, agreed, make_clients
from fedscgen.federation._agreement import Description, SetUp
from fedscgen.secure import AggregationError, Identity, MaskedContributor

VICTIM = "site1"
ABOUT = {name: BEGIN.meta["masking"][name] for name in ("session", "sum")}


def ask(client, kind, arrays=None, **meta):
    return Message.from_bytes(client.handle(Message(kind, meta, arrays or {}).to_bytes()))


def start(clients):
    """What sites have in common that were proposed a plan, and the plan."""
    plan = propose(*SITES, aggregator="masked")
    answers = [Message.from_bytes(client.handle(plan.to_message().to_bytes())) for client in clients]
    described = {client.site: Description.from_message(answer) for client, answer in zip(clients, answers, strict=True)}
    return SetUp.of(described, plan.settings, None), plan


def make_up_keys(victim):
    """A site's own keys for a sum, between such as the coordinator has made up for the others."""
    own = ask(victim, BEGIN.kind, **BEGIN.meta)
    keys = [own if site == VICTIM else MaskedContributor(site).answer(BEGIN) for site in SITES]
    return {name: np.concatenate([of.arrays[name] for of in keys]) for name in ("channel", "mask")}


def test_no_shares_are_dealt_to_keys_that_a_site_cannot_check_yet():
    """With the group's key only in the message after it, it would mask its term with what the coordinator knows."""
    _, clients = agreed()
    victim = clients[SITES.index(VICTIM)]
    keys = make_up_keys(victim)
    with pytest.raises(AggregationError, match="has not got to know the other sites of this run"):
        ask(victim, "encrypted key shares", keys, masking={**ABOUT, "sites": list(SITES)})


def test_keys_of_a_sum_that_began_before_the_run_are_gone_when_it_begins():
    """Outside of runs a site checks no keys: none of those may mask what it contributes in one."""
    clients = make_clients()
    victim = clients[SITES.index(VICTIM)]
    keys = make_up_keys(victim)
    about = {"masking": {**ABOUT, "sites": list(SITES)}}
    ask(victim, "encrypted key shares", keys, **about)
    server, _ = agreed(clients, replace(SETTINGS, min_sites=2))  # under which no site makes keys with its settings
    task, key = "sums before training", server._published._sealed[VICTIM]
    with pytest.raises(AggregationError, match="has no keys for 'sums before training' in sum 1"):
        ask(victim, task, task=task, number=1, group_key=key, **about)


def test_keys_of_a_sum_that_began_outside_a_run_are_gone_when_it_goes_on(tmp_path):
    """A site that was started anew checks no keys until it is told which run it is in."""
    server, _ = agreed(make_clients(memory=tmp_path))
    victim = make_clients(memory=tmp_path)[SITES.index(VICTIM)]
    keys = make_up_keys(victim)
    about = {"masking": {**ABOUT, "sites": list(SITES)}}
    ask(victim, "encrypted key shares", keys, **about)
    victim.handle(server._plan.to_message().to_bytes())
    task, key = "sums before training", server._published._sealed[VICTIM]
    with pytest.raises(AggregationError, match="has no keys for 'sums before training' in sum 1"):
        ask(victim, task, task=task, number=1, group_key=key, **about)


@pytest.mark.parametrize("restarted", SITES[1:])
def test_a_site_that_is_started_anew_before_it_has_the_group_key_goes_on(restarted, tmp_path):
    server, clients = agreed(make_clients(memory=tmp_path))
    i = SITES.index(restarted)
    clients[i] = make_clients(memory=tmp_path)[i]
    clients[i].resume(server._plan.run)
    server._transport = InProcessTransport(clients)
    assert server._perform("sums before training")
    assert server._published.n_sums == 1


def seal_for_two(leader, plan, introductions):
    """The group's key from the first site, as if it had met nobody but the victim."""
    liar = MaskedContributor(leader.site)
    liar._identity = leader._identity
    liar.introduce(plan.fingerprint)
    liar._introductions._channel = leader._introductions._channel
    return liar.meet("", {site: introductions[site] for site in (leader.site, VICTIM)}, 0)[VICTIM]


def test_of_sites_of_whom_one_is_unknown_none_is_met():
    """Else the sites that were introduced before it would be all, and fewer than any sum is to be over."""
    contributors = {site: MaskedContributor(site) for site in SITES}
    contributors[VICTIM]._trusted = {
        site: c._identity.fingerprint if site != "site2" else Identity().fingerprint for site, c in contributors.items()
    }
    clients = make_clients(contributors)
    terms, plan = start(clients)
    victim = clients[SITES.index(VICTIM)]
    with pytest.raises(AggregationError, match="somebody speaks in the name of site 'site2'"):
        victim.handle(terms.to_message().to_bytes())
    sealed = seal_for_two(contributors["site0"], plan, terms.introductions)
    with pytest.raises(AggregationError, match="comes before site 'site1' has met the others"):
        ask(victim, BEGIN.kind, **BEGIN.meta, group_key=sealed)
    with pytest.raises(AggregationError, match="has not got to know the other sites of this run"):
        ask(victim, BEGIN.kind, **BEGIN.meta)


def test_a_site_with_an_unusable_key_is_refused_by_name():
    """Of it no secret can be agreed on; its signature is good."""
    contributors = {site: MaskedContributor(site) for site in SITES}
    clients = make_clients(contributors)
    terms, _ = start(clients)
    introductions = contributors["site2"]._introductions
    introductions._channel = SimpleNamespace(public=bytes(32))
    shown = introductions.introduce()
    told = replace(terms, introductions={**terms.introductions, "site2": shown})
    with pytest.raises(AggregationError, match="site 'site2' shows a key that is none"):
        clients[0].handle(told.to_message().to_bytes())


def test_a_site_that_is_told_of_another_plan_opens_no_sum_of_the_last():
    """Its answer would not be checked against whom the others have confirmed."""
    clients = make_clients(policy=SitePolicy(min_sites=2))
    server, _ = agreed(clients, replace(SETTINGS, min_sites=2))
    victim, plan = clients[SITES.index(VICTIM)], server._plan

    def propose_again(site, message):
        if site == VICTIM:
            victim.handle(plan.to_message().to_bytes())
        return message

    server._transport = Lying(clients, "unmasking shares", propose_again)
    with pytest.raises(SiteError, match="has no keys for 'unmasking shares'"):
        server._perform("sums before training")
