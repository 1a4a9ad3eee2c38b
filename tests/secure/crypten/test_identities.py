"""Who a site shares its term among, and whose shares a party takes: nobody whom the coordinator alone vouches for."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("platformdirs", reason="needs the extra fedscgen[crypten]")

from fedscgen._types import Message
from fedscgen.secure import (
    AggregationError,
    Contribution,
    CryptenAggregator,
    CryptenContributor,
    Identity,
    find_aggregator,
)
from fedscgen.secure._introduction import PARTY, introduce
from fedscgen.secure._keys import KeyPair
from fedscgen.secure._sum_id import SumId
from fedscgen.secure.crypten._dealer import DEALER, Needs, deal
from fedscgen.secure.crypten._party import Party
from fedscgen.secure.crypten._shares import unseal_share
from fedscgen.secure.crypten._terms import PARTIES, SELECTION, TERMS, Terms

SITES = ("a", "b", "c")
FIRST, SECOND = SumId("session", 1), SumId("session", 2)
TERM = Contribution({"w": np.arange(4.0)}, weight=2.0, number=1)
CELLS = Contribution({"keys": np.ones(3), "values": np.ones((3, 2))}, number=1)


class Federation:
    """Two parties, a dealer and three sites in this process, and no coordinator but the test."""

    def __init__(self, run="run", *, parties=None, meet=True, n_parties=2):
        self.parties = parties or [Party(rank, n_parties) for rank in range(n_parties)]
        self.dealer = Identity()
        self.pins = {f"party {rank}": party._identity.fingerprint for rank, party in enumerate(self.parties)}
        self.pins[DEALER] = self.dealer.fingerprint
        self.sites = {site: CryptenContributor(site, parties=self.pins) for site in SITES}
        if meet:
            get_to_know(self.sites, run)

    def advertise(self, sum_id=FIRST):
        message = Message("advertise", sum_id.to_meta())
        return {f"party {rank}": party.handle(message).meta["shown"] for rank, party in enumerate(self.parties)}

    def task(self, shown, sum_id=FIRST, **changes):
        told = {
            **sum_id.to_meta(), "purpose": "sum", "precision": 20, "max_abs": 2.0**32, "sites": list(SITES),
            "parties": shown, "dealer": self.dealer.public.hex(),
        }  # fmt: skip
        return Message("task", {"task": "fit", PARTIES: {**told, **changes}})

    def share(self, shown, site="a", contribution=TERM, **changes):
        return self.sites[site].contribute(contribution, self.task(shown, **changes))

    def begin(self, answer, party=0, **changes):
        terms = {**answer.meta[TERMS], **changes}
        return self.parties[party].handle(Message("begin", {**FIRST.to_meta(), "terms": terms}))

    def give(self, answer, site="a", party=0):
        sealed = {"sealed": answer.arrays[f"party {party}"]}
        return self.parties[party].handle(Message("share", {**FIRST.to_meta(), "site": site}, sealed))


def get_to_know(contributors, run="run", least=2):
    introductions = {site: contributor.introduce(run) for site, contributor in contributors.items()}
    sealed = {site: contributor.meet("agreed", introductions, least) for site, contributor in contributors.items()}
    (keys,) = [of for of in sealed.values() if of]
    for site, key in keys.items():
        contributors[site].join(key)


def test_a_site_shares_among_parties_whose_people_it_knows():
    federation = Federation()
    shown = federation.advertise()
    answers = {site: federation.share(shown, site) for site in SITES}
    for party in (0, 1):
        assert federation.begin(answers["a"], party).kind == "begun"
        assert all(federation.give(answers[site], site, party).kind == "held" for site in SITES)


def swap_key(shown, federation):
    return {**shown, "channel": KeyPair().public.hex()}


def leave_unsigned(shown, federation):
    return {**shown, "signature": "00" * 64}


def leave_out_the_signature(shown, federation):
    return {name: value for name, value in shown.items() if name != "signature"}


def replay_another_sum(shown, federation):
    return federation.advertise(SECOND)["party 0"]


def take_its_place(shown, federation):
    return introduce(PARTY, "party 0", Identity(), KeyPair().public, FIRST.session, FIRST.number)


def show_the_key_of_party_1(shown, federation):
    return federation.shown["party 1"]


@pytest.mark.parametrize(
    ("lie", "refusal"),
    [
        (swap_key, "compute party 'party 0' has not signed its key"),
        (leave_unsigned, "compute party 'party 0' has not signed its key"),
        (leave_out_the_signature, "no readable 'signature'"),
        (replay_another_sum, "compute party 'party 0' has not signed its key"),
        (take_its_place, "somebody speaks in the name of compute party 'party 0': its fingerprint is another"),
        (show_the_key_of_party_1, "somebody speaks in the name of compute party 'party 0'"),
    ],
)
def test_a_key_that_the_party_has_not_signed_for_this_sum_is_refused_by_name(lie, refusal):
    federation = Federation()
    federation.shown = shown = federation.advertise()
    with pytest.raises(AggregationError, match=refusal):
        federation.share({**shown, "party 0": lie(shown["party 0"], federation)})


def test_a_phantom_party_is_refused_and_so_is_whoever_pins_none():
    federation, phantom = Federation(), Party(2, 3)
    shown = federation.advertise()
    of_phantom = phantom.handle(Message("advertise", FIRST.to_meta())).meta["shown"]
    with pytest.raises(AggregationError, match="compute party 'party 2' is unknown here: its fingerprint must come"):
        federation.share({**shown, "party 2": of_phantom})
    without_pins = find_aggregator("crypten").contributor("a", reveal_keys=False, min_sites=2)
    with pytest.raises(AggregationError, match="compute party 'party 0' is unknown here"):
        without_pins.contribute(TERM, federation.task(shown))


def test_a_site_shares_among_all_parties_that_it_knows_and_two_or_more():
    three = Federation(n_parties=3)
    shown = three.advertise()
    two = {party: shown[party] for party in ("party 0", "party 1")}
    with pytest.raises(AggregationError, match=r"among 2 .*all that it knows \(party 0, party 1, party 2\)"):
        three.share(two)
    one = Federation(parties=[Party(0, 1)])
    for shown in (one.advertise(), {}):
        with pytest.raises(AggregationError, match=r"refuses to share its term among \d compute parties: at least 2"):
            one.share(shown)
    with pytest.raises(AggregationError, match="run the task with a CryptenAggregator"):
        one.sites["a"].contribute(TERM, Message("task", {"task": "fit"}))
    with pytest.raises(AggregationError, match="no answer"):
        one.sites["a"].answer(Message("open"))


def test_another_dealer_is_refused():
    federation = Federation()
    with pytest.raises(AggregationError, match="somebody speaks in the name of the dealer"):
        federation.share(federation.advertise(), dealer=Identity().public.hex())


def test_a_site_takes_part_in_a_sum_once_and_in_none_with_strangers_or_another_range():
    federation = Federation()
    shown = federation.advertise()
    with pytest.raises(AggregationError, match=r"max_abs=8\.0: this site's own bound is"):
        federation.share(shown, "b", max_abs=8.0)
    with pytest.raises(AggregationError, match="refuses the sites"):
        federation.share(shown, "c", sites=["a", "c", "phantom"])
    federation.share(shown)
    with pytest.raises(AggregationError, match="has taken part in sum 1: begin a new one"):
        federation.share(shown)


def test_a_share_of_another_run_is_refused():
    """Its parties' keys are signed for the sum; replayed, they would serve who was told of another run."""
    federation = Federation("one run")
    other = Federation("another run", parties=federation.parties)
    other.dealer, other.pins[DEALER] = federation.dealer, federation.pins[DEALER]
    shown = federation.advertise()
    federation.begin(federation.share(shown))
    with pytest.raises(AggregationError, match="share of site 'a' is refused: it is not signed, or on other terms"):
        federation.give(other.share(shown))
    with pytest.raises(AggregationError, match="no sum that was begun here"):  # and its key is gone
        federation.give(other.share(shown, "b"), "b")
    with pytest.raises(AggregationError, match="begun before"):
        federation.advertise()


def test_a_phantom_site_is_in_no_sum():
    """Else the coordinator would know all terms of a sum but one."""
    federation = Federation()
    shown = federation.advertise()
    federation.begin(federation.share(shown))
    phantom = CryptenContributor("b", parties=federation.pins)
    phantom._membership, phantom._is_in_run = federation.sites["a"]._membership, True  # knows all, and has another key
    with pytest.raises(AggregationError, match="share of site 'b' is refused: it is not signed"):
        federation.give(phantom.contribute(TERM, federation.task(shown)), "b")
    other = Federation()
    answer = other.share(other.advertise())
    other.begin(answer)
    with pytest.raises(AggregationError, match="site 'd' is none of this sum"):
        other.give(answer, "d")


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": SELECTION, "shape": [1, 6]},
        {"shape": [6]},
        {"least": 1},
        {"group": "another"},
        {"sites": None},
        {"sites": {"a": "00" * 32, "phantom": "00" * 32}},
        {"run": "another"},
        {"dealer": "00" * 32},
        {"keys": "00" * 32},
        {"precision": 16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_party_takes_a_share_on_terms_that_its_site_was_not_told(change):
    """So that no sum is opened as a selection, of other sites, of fewer of them or with another dealer's numbers."""
    federation = Federation()
    answer = federation.share(federation.advertise())
    federation.begin(answer, **change)
    with pytest.raises(AggregationError, match="share of site 'a' is refused"):
        federation.give(answer)


def test_keys_of_a_selection_are_not_cut_off_elsewhere():
    federation = Federation()
    answer = federation.share(federation.advertise(), contribution=CELLS, purpose=SELECTION)
    assert answer.meta[TERMS]["shape"] == [3, 2]
    assert answer.meta[TERMS]["least"] == 3
    federation.begin(answer, shape=[1, 8])
    with pytest.raises(AggregationError, match="share of site 'a' is refused"):
        federation.give(answer)


def test_a_party_opens_nothing_over_fewer_sites_than_they_agree_to():
    for contribution, least in ((TERM, 2), (replace(TERM, group="components"), 3)):
        federation = Federation()
        shown = federation.advertise()
        answers = {site: federation.share(shown, site, contribution) for site in SITES}
        federation.begin(answers["a"])
        for site in SITES[: least - 1]:
            federation.give(answers[site], site)
        with pytest.raises(AggregationError, match=rf"a sum over {least - 1} sites .* at least {least}"):
            federation.parties[0].handle(Message("open", FIRST.to_meta()))
        with pytest.raises(AggregationError, match="no sum that was begun here"):  # a refusal ends the sum
            federation.give(answers["c"], "c")


def test_a_party_takes_its_stages_in_order():
    federation = Federation()
    answer = federation.share(federation.advertise())
    with pytest.raises(AggregationError, match="out of order"):
        federation.give(answer)
    federation = Federation()
    answer = federation.share(federation.advertise())
    federation.begin(answer)
    federation.give(answer)
    with pytest.raises(AggregationError, match="contributed already"):
        federation.give(answer)
    federation = Federation()
    answer = federation.share(federation.advertise())
    with pytest.raises(AggregationError, match="terms of another sum"):
        federation.begin(answer, sum_id=SECOND.to_meta())


@pytest.mark.parametrize("party", ["party 0", "party 1"])
def test_numbers_that_the_dealer_has_sealed_for_other_keys_serve_no_party(party):
    """A coordinator who had the dealer seal them for a key of its own could read what the parties multiply."""
    dealer, pairs = Identity(), {"party 0": KeyPair(), "party 1": KeyPair()}
    keys = {name: pair.public for name, pair in pairs.items()}
    terms = Terms(FIRST, SELECTION, (3, 2), 20, "", dealer.public.hex()).for_keys(keys)
    needs = Needs.of_selection(2, 3, 3, 2)

    def open_(dealt, identity=dealer):
        return unseal_share(pairs[party], memoryview(dealt[party]), terms, DEALER, party, identity.public.hex())

    assert open_(deal(dealer, keys, needs, terms))
    other = "party 1" if party == "party 0" else "party 0"
    for dealt in (
        deal(dealer, {**keys, other: KeyPair().public}, needs, terms),
        deal(Identity(), keys, needs, terms),
    ):
        with pytest.raises(ValueError, match="not signed, or on other terms, or somebody else's"):
            open_(dealt)


@pytest.fixture(scope="module")
def aggregator():
    with CryptenAggregator(3, n_parties=2, timeout=30) as crypten:
        yield crypten


def ask_sites(contributors, contribution, messages):
    return [(site, contributors[site].contribute(contribution, message)) for site, message in messages.items()]


def test_sums_of_a_group_are_over_the_same_sites(aggregator):
    """Else the difference of two sums would be a site's own term."""
    contributors = {site: aggregator.contributor(site) for site in SITES}
    get_to_know(contributors)
    task = Message("task", {"task": "fit"})
    ask = partial(ask_sites, contributors, TERM)
    assert aggregator.sum(ask, SITES, task).n_sites == 3
    assert aggregator.sum(ask, SITES, task).n_sites == 3
    with pytest.raises(AggregationError, match="sum 1 was open over other sites"):
        aggregator.sum(ask, SITES[:2], task)


def test_sites_know_the_sum_when_they_see_it():
    contributors = {}
    with CryptenAggregator(3, n_parties=2, timeout=30) as crypten:
        contributors = {site: crypten.contributor(site) for site in SITES}
        get_to_know(contributors)
        opened = crypten.sum(partial(ask_sites, contributors, TERM), SITES, Message("task", {"task": "fit"})).opened
    np.testing.assert_allclose(contributors["b"].read_sum(opened.to_message(), 1).arrays["w"], 6 * np.arange(4.0))
    forged = opened.words.copy()
    forged[0] += np.uint64(1)
    with pytest.raises(AggregationError, match="is not the sum of what the sites contributed"):
        contributors["a"].read_sum(replace(opened, words=forged).to_message(), 1)


def test_parties_that_are_started_again_are_others():
    """They keep nothing, their identities neither: what is made of the aggregator knows those that it has started."""
    crypten = CryptenAggregator(2, timeout=30)
    contributor = crypten.contributor("a")
    with crypten:
        before = dict(crypten.fingerprints)
    with crypten:
        assert set(crypten.fingerprints) == set(before) == {"party 0", "party 1", DEALER}
        assert not set(crypten.fingerprints.values()) & set(before.values())
        assert contributor._parties == crypten.fingerprints
        pinned_before = CryptenContributor("b", parties=before)
        with pytest.raises(AggregationError, match="somebody speaks in the name of compute party 'party 0'"):
            crypten.sum(
                partial(ask_sites, {"a": contributor, "b": pinned_before}, TERM), ["a", "b"],
                Message("task", {"task": "fit"}),
            )  # fmt: skip
