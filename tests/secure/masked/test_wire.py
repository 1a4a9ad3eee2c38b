"""What an eavesdropper on every wire of a masked sum can and can't see."""

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure import Contribution, MaskedAggregator, PlainAggregator

TRAIN = Message("train", {"task": "weights"}, {"global": np.zeros(3, dtype=np.float32)})


def eavesdrop(aggregator, terms, n_sums=1):
    """Run sums and record ``(sender, receiver, bytes)`` of every message."""
    contributors = {site: aggregator.contributor(site) for site in terms}
    seen = []

    def ask(messages):
        answers = {}
        for site, message in messages.items():
            seen.append(("coordinator", site, message.to_bytes()))
            message = Message.from_bytes(seen[-1][2])
            in_task = "task" in message.meta
            answer = (
                contributors[site].contribute(terms[site], message) if in_task else contributors[site].answer(message)
            )
            seen.append((site, "coordinator", answer.to_bytes()))
            answers[site] = Message.from_bytes(seen[-1][2])
        return answers.items()

    for _ in range(n_sums):
        aggregator.sum(ask, list(terms), TRAIN)
    return seen


def arrays_sent(seen, name):
    """By site, the arrays of this name that it sent, in order."""
    sent = {}
    for sender, _, data in seen:
        message = Message.from_bytes(data)
        if sender != "coordinator" and name in message.arrays:
            sent.setdefault(sender, []).append(message.arrays[name])
    return sent


def random_terms(n_sites, seed=0, size=14):
    rng = np.random.default_rng(seed)
    return {
        f"site {i}": Contribution(
            {"w": rng.standard_normal(size).astype(np.float32)}, weight=float(rng.integers(10_000, 50_000))
        )
        for i in range(n_sites)
    }


def shown(in_the_clear, seen, terms, precision):
    """In which forms any site's arrays or weight show on the wire, as they are or multiplied."""
    numbers = []
    for term in terms.values():
        numbers += [term.arrays["w"], term.arrays["w"].astype(np.float64) * term.weight, term.weight]
    return in_the_clear(b"".join(data for _, _, data in seen), numbers, precision)


def test_no_site_shows_its_numbers(in_the_clear):
    aggregator, terms = MaskedAggregator(), random_terms(5)
    assert shown(in_the_clear, eavesdrop(aggregator, terms), terms, aggregator.precision_for(5)) == set()
    assert {"float32", "float64"} <= shown(in_the_clear, eavesdrop(PlainAggregator(), terms), terms, 29)


def test_without_masks_the_numbers_would_show(monkeypatch, in_the_clear, uniform):
    monkeypatch.setattr("fedscgen.secure.masked._contributor.add_masks", lambda *args, **kwargs: None)
    aggregator, terms = MaskedAggregator(), random_terms(3, size=500)
    seen = eavesdrop(aggregator, terms)
    assert shown(in_the_clear, seen, terms, aggregator.precision_for(3)) == {"fixed point"}
    assert not any(uniform(words.tobytes()) for (words,) in arrays_sent(seen, "masked").values())


def test_lengths_do_not_depend_on_the_data():
    first, second = (eavesdrop(MaskedAggregator(), random_terms(3, seed)) for seed in (1, 2))
    assert [(*ends, len(data)) for *ends, data in first] == [(*ends, len(data)) for *ends, data in second]


def test_masked_words_are_uniform_whatever_they_hide(uniform):
    terms = {site: Contribution({"w": np.zeros(20_000)}) for site in ("a", "b", "c")}
    for (words,) in arrays_sent(eavesdrop(MaskedAggregator(), terms), "masked").values():
        assert uniform(words.tobytes())


def test_the_same_contribution_is_masked_anew_in_every_sum():
    seen = eavesdrop(MaskedAggregator(), random_terms(3, size=500), n_sums=2)
    for first, second in arrays_sent(seen, "masked").values():
        assert not (first == second).any()
    keys = [key.tobytes() for name in ("channel", "mask") for sent in arrays_sent(seen, name).values() for key in sent]
    assert len(set(keys)) == len(keys) == 3 * 2 * 2
