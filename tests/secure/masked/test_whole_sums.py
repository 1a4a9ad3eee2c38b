"""Sums that no site may be missing in: one exchange each, without a share of any secret."""

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, MaskedAggregator, MaskedContributor
from fedscgen.secure._fixed_point import MAX_ABS, decode
from fedscgen.secure._sum_id import SumId
from fedscgen.secure.masked._protocol import Terms
from fedscgen.secure.masked._public_keys import PublicKeys

TASK = Message("train", {"task": "weights"}, {"global": np.zeros(3, dtype=np.float32)})
SITES = ["north", "south", "west"]


class Sites:
    """Sites that answer through the wire format, and what has crossed it."""

    def __init__(self, sites=SITES, **options):
        rng = np.random.default_rng(0)
        self.aggregator = MaskedAggregator(**options)
        self.contributors = {site: self.aggregator.contributor(site) for site in sites}
        self.terms = {
            site: Contribution({"x": rng.normal(size=9)}, weight=float(i + 1)) for i, site in enumerate(sites)
        }
        self.asked, self.answers = [], []
        self.change = lambda site, message: message

    def ask(self, messages):
        self.asked.append(next(iter(messages.values())).kind)
        for site, message in messages.items():
            question = self.change(site, Message.from_bytes(message.to_bytes()))
            answer = Message.from_bytes(self.answer(site, question).to_bytes())
            self.answers.append((site, question, answer))
            yield site, answer

    def answer(self, site, question):
        contributor = self.contributors[site]
        if "task" in question.meta:
            return contributor.contribute(self.terms[site], question)
        return contributor.answer(question)

    def sum(self, sites=SITES, **options):
        return self.aggregator.sum(self.ask, sites, TASK, **{"require_all": True, **options})

    def check(self, sums, sites=SITES):
        expected = sum(self.terms[site].weight * self.terms[site].arrays["x"] for site in sites)
        np.testing.assert_allclose(sums.arrays["x"], expected, atol=1e-6)
        assert sums.n_sites == len(sites)

    def masked(self):
        return [(site, answer.arrays["masked"]) for site, _, answer in self.answers if "masked" in answer.arrays]


def test_every_sum_after_the_first_takes_one_exchange():
    sites = Sites()
    for _ in range(4):
        sites.check(sites.sum())
    assert sites.asked == ["mask public keys", *["train"] * 4]
    crossed = {name for _, question, answer in sites.answers for name in (*question.arrays, *answer.arrays)}
    assert not {name for name in crossed if "share" in name or "survivor" in name}


def test_every_sum_has_keys_and_masks_of_its_own():
    sites = Sites()
    for _ in range(3):
        sites.sum()
    of_north = [
        question.arrays["public mask"].tobytes() for site, question, _ in sites.answers if "task" in question.meta
    ]
    assert len(set(of_north)) == 3
    words = [words for site, words in sites.masked() if site == "north"]
    assert len({word.tobytes() for word in words}) == 3


@pytest.mark.parametrize("left_out", SITES)
def test_the_terms_of_some_of_the_sites_are_noise(left_out):
    sites = Sites()
    sites.sum()
    total = sum(words for site, words in sites.masked() if site != left_out)
    assert np.abs(decode(total, 16)).min() > 1e6


@pytest.mark.parametrize("options", [{"require_all": False}, {"may_shrink": True}])
def test_sites_that_may_be_missing_deal_shares_each_time(options):
    sites = Sites()
    for _ in range(2):
        sites.check(sites.sum(**options))
    assert sites.asked == ["mask public keys", "encrypted key shares", "train", "unmasking shares"] * 2


def test_keys_are_not_used_among_other_sites_than_they_were_made_for():
    sites = Sites()
    sites.sum()
    sites.check(sites.sum(["north", "west"]), ["north", "west"])
    sites.check(sites.sum())
    assert sites.asked == ["mask public keys", "train"] * 3


def test_keys_are_gone_after_a_sum_that_sites_may_be_missing_in():
    sites = Sites()
    for options in ({}, {"require_all": False}, {}, {}):
        sites.check(sites.sum(**options))
    assert sites.asked[-3:] == ["mask public keys", "train", "train"]


def test_a_site_that_was_started_anew_gets_new_keys():
    sites = Sites()
    sites.sum()
    sites.contributors["south"] = sites.aggregator.contributor("south")
    sites.check(sites.sum())
    assert sites.asked == ["mask public keys", "train", "train", "mask public keys", "train"]


def test_a_site_that_loses_its_keys_each_time_ends_the_sum():
    sites = Sites()
    sites.sum()
    answer = sites.answer

    def forget(site, question):
        if site == "south" and "task" in question.meta:
            sites.contributors["south"] = sites.aggregator.contributor("south")
        return answer(site, question)

    sites.answer = forget
    with pytest.raises(AggregationError, match="has lost its keys: nothing was opened"):
        sites.sum()


def test_no_term_is_given_twice():
    sites = Sites()
    sites.sum()
    _, question, _ = next(found for found in sites.answers if found[0] == "west" and "task" in found[1].meta)
    with pytest.raises(AggregationError, match="has no keys for 'train' in sum 1"):
        sites.answer("west", question)


def test_no_site_is_left_out_under_the_terms_of_all():
    sites = Sites()

    def leave_out(site, message):
        if "task" not in message.meta:
            return message
        meta = {**message.meta, "masking": {**message.meta["masking"], "sites": ["north", "south"]}}
        return Message(message.kind, meta, {name: array[:2] for name, array in message.arrays.items()})

    sites.change = leave_out
    with pytest.raises(AggregationError, match="threshold=3 of 2 sites"):
        sites.sum()


def test_a_site_that_may_be_missing_masks_nothing_before_it_has_dealt_shares():
    sites = Sites(threshold=2)

    def skip_shares(messages):
        if next(iter(messages.values())).kind != "encrypted key shares":
            return sites.ask(messages)
        (shares, *_) = messages.values()
        keys = {f"public {name}": array for name, array in shares.arrays.items()}
        return sites.ask({site: Message("train", {**shares.meta, **TASK.meta}, keys) for site in messages})

    with pytest.raises(AggregationError, match="who may be missing first deals shares"):
        sites.aggregator.sum(skip_shares, SITES, TASK)


def test_a_site_whose_keys_were_swapped_masks_nothing():
    sites = Sites()
    sites.sum()

    def swap(site, message):
        keys = message.arrays["public mask"].copy()
        keys[0] = 7
        return Message(message.kind, message.meta, {**message.arrays, "public mask": keys})

    sites.change = swap
    with pytest.raises(AggregationError, match="other public keys of this site than those it advertised"):
        sites.sum()


class Met:
    """Five sites that know each other, of whom all must be in a sum."""

    SITES = tuple("ABCDE")

    def __init__(self):
        self.contributors = {site: MaskedContributor(site) for site in self.SITES}
        introductions = {site: member.introduce("run") for site, member in self.contributors.items()}
        sealed = self.contributors["A"].meet("agreed", introductions, 5)
        for site in self.SITES[1:]:
            self.contributors[site].meet("agreed", introductions, 5)
            self.contributors[site].join(sealed[site])

    def advertise(self, rules):
        """The sites' signed keys for one sum, each of them told another rule."""
        found = []
        for site, (threshold, whole) in rules.items():
            terms = Terms(SumId("session", 1), threshold, 20, MAX_ABS, whole)
            answer = self.contributors[site].answer(Message("mask public keys", {"masking": terms.to_json()}))
            found.append(PublicKeys.from_arrays(answer.arrays, [site], signed=True))
        return PublicKeys.join(found)

    def ask_to_deal(self, site, keys):
        meta = {"masking": {**SumId("session", 1).to_meta(), "sites": keys.sites}}
        return self.contributors[site].answer(Message("encrypted key shares", meta, keys.to_arrays()))

    def ask_for_term(self, site, keys):
        meta = {**TASK.meta, "masking": {**SumId("session", 1).to_meta(), "sites": keys.sites}}
        term = Contribution({"x": np.ones(3)}, number=1, group="components")
        return self.contributors[site].contribute(term, Message("train", meta, keys.to_arrays("public ")))


def test_sites_that_were_told_different_rules_neither_deal_nor_mask():
    """Shares of one's mask key, and the term of another that has no mask of its own, would show that term."""
    rules = dict.fromkeys(Met.SITES, (3, False)) | {"A": (5, True)}
    met = Met()
    keys = met.advertise(rules)
    with pytest.raises(AggregationError, match="site 'A' has not signed these keys"):
        met.ask_to_deal("B", keys)
    with pytest.raises(AggregationError, match="site 'B' has not signed these keys"):
        met.ask_for_term("A", keys)


def test_no_shares_are_dealt_of_the_keys_of_a_sum_that_all_must_be_in():
    met = Met()
    keys = met.advertise(dict.fromkeys(Met.SITES, (5, True)))
    with pytest.raises(AggregationError, match="no shares of its keys are dealt"):
        met.ask_to_deal("B", keys)


def test_no_term_without_a_mask_of_its_own_is_given_under_the_rule_of_shares():
    met = Met()
    keys = met.advertise(dict.fromkeys(Met.SITES, (5, False)))
    with pytest.raises(AggregationError, match="who may be missing first deals shares"):
        met.ask_for_term("A", keys)


def test_a_site_remembers_over_whom_a_sum_may_be_open_when_it_is_started_anew():
    met = Met()
    met.ask_for_term("A", met.advertise(dict.fromkeys(Met.SITES, (5, True))))
    anew = MaskedContributor("A")
    anew.restore(met.contributors["A"].save())
    with pytest.raises(ValueError, match="components may be open over A, B, C, D, E"):
        anew._check_group("components", ("A", "B", "C"), 3, whole=True)
