"""Masked sums over a star of sites whose messages are serialised, and which may fall silent at any stage."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, MaskedAggregator, PlainAggregator, error_bound
from fedscgen.secure._keys import add_mask, derive
from fedscgen.secure._opened import describe_sum, hash_description
from fedscgen.secure._vector import flatten
from fedscgen.secure.masked._protocol import bind_mask, self_context
from fedscgen.secure.masked._states import AfterShares

KEYS, SHARES, TASK, UNMASK = STAGES = "mask public keys", "encrypted key shares", "train", "unmasking shares"
TRAIN = Message(TASK, {"task": "weights"}, {"global": np.zeros(3, dtype=np.float32)})


@dataclass
class Star:
    """Sites around a coordinator. ``silent`` says from which stage on a site no longer answers."""

    aggregator: object
    terms: dict[str, Contribution]
    silent: dict[str, str] = field(default_factory=dict)
    lose_answer: bool = False
    tamper: object = None

    def __post_init__(self):
        self.contributors = {site: self.aggregator.contributor(site) for site in self.terms}
        self.seen = []  # (sender, receiver, bytes)
        self.received = {}  # the last message of each kind, by site and kind

    def ask(self, messages):
        answers = {}
        for site, message in messages.items():
            late = STAGES.index(message.kind) - STAGES.index(self.silent.get(site, UNMASK))
            down = site in self.silent and late >= 0
            if not down or (late == 0 and self.lose_answer):
                answer = self._exchange(site, message)
            if not down:
                answers[site] = answer
        return answers.items()

    def _exchange(self, site, message):
        data = message.to_bytes()
        self.seen.append(("coordinator", site, data))
        message = Message.from_bytes(data)
        if self.tamper is not None:
            message = self.tamper(site, message)
        self.received[site, message.kind] = message
        data = self.deliver(site, message).to_bytes()
        self.seen.append((site, "coordinator", data))
        return Message.from_bytes(data)

    def deliver(self, site, message):
        if "task" in message.meta:
            return self.contributors[site].contribute(self.terms[site], message)
        return self.contributors[site].answer(message)

    def sum(self, **options):
        return self.aggregator.sum(self.ask, list(self.terms), TRAIN, **options)

    def words(self):
        """The masked words that each site has sent, by site."""
        sent = [(sender, Message.from_bytes(data)) for sender, _, data in self.seen if sender != "coordinator"]
        return {sender: message.arrays["masked"] for sender, message in sent if "masked" in message.arrays}


def random_terms(n_sites, seed=0, size=7):
    rng = np.random.default_rng(seed)
    return {
        f"site {i}": Contribution(
            {"w": rng.standard_normal((2, size)).astype(np.float32), "b": rng.standard_normal(1) * 10},
            weight=float(rng.integers(5, 5000)),
        )
        for i in range(n_sites)
    }


def assert_sum_over(opened, terms, sites):
    plain = Star(PlainAggregator(), {site: terms[site] for site in sites}).sum()
    assert opened.n_sites == len(sites)
    assert opened.weight == plain.weight
    assert opened.arrays.keys() == plain.arrays.keys()
    bound = error_bound(MaskedAggregator().precision_for(len(terms)), len(sites))
    for name, array in plain.arrays.items():
        assert opened.arrays[name].shape == array.shape
        np.testing.assert_allclose(opened.arrays[name], array, rtol=1e-15, atol=bound)


@pytest.mark.parametrize("n_sites", [2, 3, 5, 10])
def test_masked_sum_equals_plain_sum(n_sites):
    terms = random_terms(n_sites)
    assert_sum_over(Star(MaskedAggregator(), terms).sum(), terms, list(terms))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), n_sites=st.sampled_from([2, 3, 5, 10]), shape=st.sampled_from([(0,), (1,), (3,), (2, 2)]))
def test_masked_sum_equals_plain_sum_whatever_the_values(data, n_sites, shape):
    values = st.lists(st.floats(-1e3, 1e3), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    terms = {
        f"klinik-ü{i}": Contribution({"x": np.reshape(data.draw(values), shape)}, data.draw(st.integers(0, 10**6)))
        for i in range(n_sites)
    }
    assert_sum_over(Star(MaskedAggregator(), terms).sum(), terms, list(terms))


def test_scalars_are_summed():
    terms = {"a": Contribution({"x": np.array(1.5)}, 2.0), "b": Contribution({"x": np.array(-1.0)}, 3.0)}
    assert Star(MaskedAggregator(), terms).sum().arrays["x"] == np.array(0.0)


def test_masks_longer_than_one_piece_of_keystream_cancel():
    terms = random_terms(3, size=2**17)
    assert_sum_over(Star(MaskedAggregator(), terms).sum(), terms, list(terms))


@pytest.mark.parametrize("lost", ["site 0", "site 2", "site 4"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lose_answer", [False, True], ids=["silent", "answer lost"])
def test_a_site_that_drops_out_at_any_stage_does_not_stop_the_sum(stage, lost, lose_answer):
    terms = random_terms(5)
    star = Star(MaskedAggregator(), terms, silent={lost: stage}, lose_answer=lose_answer)
    in_sum = [site for site in terms if site != lost or stage == UNMASK]
    assert_sum_over(star.sum(), terms, in_sum)


@pytest.mark.parametrize("first", STAGES)
@pytest.mark.parametrize("second", STAGES)
def test_sites_may_drop_out_down_to_the_threshold(first, second):
    terms = random_terms(5)
    star = Star(MaskedAggregator(), terms, silent={"site 1": first, "site 3": second})
    stage_of = {"site 1": first, "site 3": second}
    assert_sum_over(star.sum(), terms, [site for site in terms if stage_of.get(site, UNMASK) == UNMASK])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("n_sites", "threshold", "n_lost"), [(5, None, 3), (5, 4, 2), (2, None, 1), (3, None, 2)])
def test_nothing_is_opened_below_the_threshold(stage, n_sites, threshold, n_lost):
    terms = random_terms(n_sites)
    star = Star(MaskedAggregator(threshold=threshold), terms, silent={f"site {i}": stage for i in range(n_lost)})
    with pytest.raises(AggregationError, match=r"missing: site 0.*fewer than the threshold.*nothing was opened"):
        star.sum()
    seen_after = [Message.from_bytes(data).kind for sender, _, data in star.seen if sender != "coordinator"]
    assert stage == UNMASK or UNMASK not in seen_after


@pytest.mark.parametrize("stage", [KEYS, SHARES, TASK])
def test_nothing_is_opened_without_a_site_that_is_required(stage):
    star = Star(MaskedAggregator(), random_terms(5), silent={"site 3": stage})
    with pytest.raises(AggregationError, match=r"4 of 5 .*missing: site 3.*threshold of 5: nothing was opened"):
        star.sum(require_all=True)
    star.silent = {}
    assert_sum_over(star.sum(require_all=True), star.terms, list(star.terms))


def test_a_new_sum_succeeds_after_one_that_failed():
    terms = random_terms(3)
    star = Star(MaskedAggregator(), terms, silent={"site 0": TASK, "site 1": TASK})
    with pytest.raises(AggregationError):
        star.sum()
    star.silent = {}
    assert_sum_over(star.sum(), terms, list(terms))


@pytest.mark.parametrize("given_up", [True, False])
def test_what_unmasks_the_sum_does_not_unmask_a_site(given_up):
    """Of a site given up, whose term arrives late, the coordinator gets the pairwise masks; of another its own mask."""
    terms = random_terms(3)
    star = Star(MaskedAggregator(), terms, silent={"site 2": TASK} if given_up else {}, lose_answer=True)
    before = []
    star.tamper = lambda site, message: before.append(star.contributors["site 2"]._state) or message
    star.sum()
    state = next(state for state in before if isinstance(state, AfterShares))
    own = {derive(state.seed, self_context(state.terms.sum_id, "site 2")): True}
    term, precision, max_abs = terms["site 2"], state.terms.precision, state.terms.max_abs
    plain, manifest = flatten(term.arrays, term.weight, precision=precision, max_abs=max_abs)
    told = hash_description(describe_sum("", 0, "", state.keys, manifest, precision))
    pairwise = {bind_mask(key, told): peer > "site 2" for peer, key in state.pair_keys.items()}
    words = star.words()["site 2"].copy()
    for known in (pairwise, own) if given_up else (own, pairwise):
        assert not (words == plain).any()
        for key, added in known.items():
            add_mask(words, key, subtract=added)
    np.testing.assert_array_equal(words, plain)


def changed(kind, *, site="site 1", meta=None, arrays=None):
    """Replace entries of the one message of this kind to this site; functions are given what was there."""

    def tamper(receiver, message):
        if (receiver, message.kind) != (site, kind):
            return message
        masking = {**message.meta["masking"], **(meta(message.meta["masking"]) if meta else {})}
        return Message(
            kind, {**message.meta, "masking": masking}, {**message.arrays, **(arrays(message) if arrays else {})}
        )

    return tamper


def flipped(message):
    shares = message.arrays["shares"].copy()
    shares[1, -1] ^= 1
    return {"shares": shares}


def twice_the_first(name):
    def arrays(message):
        keys = message.arrays[name].copy()
        keys[2] = keys[0]
        return {name: keys}

    return arrays


REFUSED = {
    "both shares of one site": (changed(UNMASK, meta=lambda m: {"dropped": ["site 0"]}), "never both revealed"),
    "own mask key": (
        changed(UNMASK, meta=lambda m: {"survivors": m["survivors"][2:], "dropped": ["site 0", "site 1"]}),
        "must include it",
    ),
    "one survivor": (
        changed(UNMASK, meta=lambda m: {"survivors": ["site 1"], "dropped": ["site 0", "site 2", "site 3", "site 4"]}),
        "refuses a sum over 1 sites",
    ),
    "survivors below the threshold": (
        changed(UNMASK, meta=lambda m: {"survivors": ["site 0", "site 1"], "dropped": ["site 2", "site 3", "site 4"]}),
        "threshold is 3",
    ),
    "a site left out": (changed(UNMASK, meta=lambda m: {"survivors": m["survivors"][:4]}), "must name each of"),
    "an unknown site": (changed(TASK, meta=lambda m: {"sites": [*m["sites"], "site 9"]}), "site 9.*be among"),
    "few sites in the task": (changed(TASK, meta=lambda m: {"sites": ["site 1"]}), "refuses a sum over 1 sites"),
    "a site twice": (changed(SHARES, meta=lambda m: {"sites": ["site 1"] * 5}), "each once"),
    "altered shares": (changed(UNMASK, arrays=flipped), "share from site 'site 2' was altered"),
    "equal mask keys": (changed(SHARES, arrays=twice_the_first("mask")), "two of the public keys are equal"),
    "equal channel keys": (changed(SHARES, arrays=twice_the_first("channel")), "two of the public keys are equal"),
    "a missing public key": (
        changed(SHARES, arrays=lambda m: {"mask": m.arrays["mask"][:4]}),
        r"'mask' is uint8 of shape \(4, 32\)",
    ),
    "a key in its name": (
        changed(SHARES, arrays=lambda m: {"mask": m.arrays["mask"][::-1]}, site="site 0"),
        "other public keys",
    ),
    "an unusable key": (
        changed(SHARES, arrays=lambda m: {"mask": m.arrays["mask"] * (np.arange(5) != 3)[:, None]}),
        "refuses the message 'encrypted key shares'",
    ),
    "a threshold that is no majority": (changed(KEYS, meta=lambda m: {"threshold": 2}), "at least 3"),
    "a range that wraps": (changed(KEYS, meta=lambda m: {"max_abs": 2.0**40}), "own bound is"),
    "another sum": (changed(TASK, meta=lambda m: {"sum": 2}), "no keys for 'train' in sum 2"),
    "a message without terms": (changed(KEYS, meta=lambda m: {"threshold": None}), "refuses the message"),
}


@pytest.mark.parametrize("request_", REFUSED)
def test_a_site_refuses(request_):
    tamper, reason = REFUSED[request_]
    star = Star(MaskedAggregator(), random_terms(5), tamper=tamper)
    with pytest.raises(AggregationError, match=rf"site 'site [01]'.*{reason}"):
        star.sum()


@pytest.mark.parametrize("kind", STAGES)
def test_replayed_stages_are_refused(kind):
    star = Star(MaskedAggregator(), random_terms(3))
    star.sum()
    with pytest.raises(AggregationError, match="begin a new"):
        star.deliver("site 1", star.received["site 1", kind])


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_repeated_within_its_sum_is_refused(kind):
    star = Star(MaskedAggregator(), random_terms(3))

    def deliver_twice(site, message):
        if message.kind == kind:
            star.deliver(site, message)
        return message

    star.tamper = deliver_twice
    with pytest.raises(AggregationError, match="begin a new"):
        star.sum()


def test_second_unmasking_with_other_survivors_is_refused():
    star = Star(MaskedAggregator(), random_terms(3))
    star.sum()
    message = star.received["site 0", UNMASK]
    other = changed(UNMASK, site="site 0", meta=lambda m: {"survivors": ["site 0", "site 1"], "dropped": ["site 2"]})
    with pytest.raises(AggregationError, match="in order and once"):
        star.deliver("site 0", other("site 0", message))


def test_stages_out_of_order_are_refused():
    star = Star(MaskedAggregator(), random_terms(3))
    star.sum()
    fresh = MaskedAggregator().contributor("site 0")
    for kind in (SHARES, UNMASK):
        with pytest.raises(AggregationError, match="in order and once"):
            fresh.answer(star.received["site 0", kind])
    with pytest.raises(AggregationError, match="nothing of a run has the kind 'hello'"):
        fresh.answer(Message("hello"))
    with pytest.raises(AggregationError, match="run the task with a MaskedAggregator"):
        fresh.contribute(star.terms["site 0"], TRAIN)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"w": np.zeros((2, 8)), "b": np.zeros(1)}, r"'w' of shape \[2, 8\], the others \[2, 7\]"),
        ({"w": np.zeros((2, 7))}, r"'b' of shape missing"),
    ],
)
def test_contribution_that_does_not_fit_names_the_site(arrays, match):
    terms = {**random_terms(3), "odd one": Contribution(arrays)}
    with pytest.raises(AggregationError, match=f"'odd one' contributed {match}"):
        Star(MaskedAggregator(), terms).sum()


def test_contribution_beyond_the_range_names_the_array():
    terms = {**random_terms(2), "diverged": Contribution({"w": np.full((2, 7), 2.0**33), "b": np.zeros(1)})}
    with pytest.raises(AggregationError, match=r"w\[0, 0\] is 8.58993e\+09.*declare a larger max_abs"):
        Star(MaskedAggregator(), terms).sum()


def test_a_sum_needs_two_sites_and_a_possible_threshold():
    aggregator = MaskedAggregator(threshold=2)
    for sites, match in [(["a"], "at least 2"), (["a", "a"], "differ by name"), (list("abcdef"), r"choose 4 .* to 6")]:
        with pytest.raises(AggregationError, match=match):
            aggregator.sum(dict, sites, TRAIN)
    with pytest.raises(ValueError, match="threshold=1"):
        MaskedAggregator(threshold=1)
    with pytest.raises(ValueError, match="precision=40"):
        MaskedAggregator(precision=40)


def test_precision_may_be_declared():
    terms = random_terms(3)
    opened = Star(MaskedAggregator(precision=16), terms).sum()
    true = sum(term.weight * term.arrays["w"].astype(float) for term in terms.values())
    assert 0 < np.abs(opened.arrays["w"] - true).max() <= error_bound(16, 3)
