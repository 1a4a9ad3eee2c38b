"""What the coordinator makes of answers that don't fit: no sum, and an error that says why."""

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, MaskedAggregator

SITES = ("a", "b", "c")
TRAIN = Message("train", {"task": "weights"})


def sum_with(spoil, *, silent=()):
    """Sum three sites' ones, with ``spoil(site, answer)`` in place of their answers; the silent never contribute."""
    aggregator = MaskedAggregator()
    contributors = {site: aggregator.contributor(site) for site in SITES}

    def ask(messages):
        answers = {}
        for site, message in messages.items():
            if "task" not in message.meta:
                answers[site] = spoil(site, contributors[site].answer(message))
            elif site not in silent:
                answer = contributors[site].contribute(Contribution({"w": np.ones(4)}), message)
                answers[site] = spoil(site, answer)
        return answers.items()

    with aggregator as opened:
        return opened.sum(ask, SITES, TRAIN)


def replaced(kind, *, meta=None, **change):
    """Change arrays of the answers of this kind from site b."""

    def spoil(site, answer):
        if site != "b" or answer.kind != kind:
            return answer
        arrays = {**answer.arrays, **{name: function(answer.arrays[name].copy()) for name, function in change.items()}}
        return Message(kind, answer.meta if meta is None else meta, arrays)

    return spoil


def flip(shares):
    shares[0, -1] ^= 1
    return shares


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (replaced("mask public keys", mask=lambda key: key[:, :31]), r"site 'b' answered .*uint8 of shape \(1, 31\)"),
        (replaced("encrypted key shares", shares=lambda rows: rows[:1]), "site 'b' answered 'encrypted key shares'"),
        (replaced("masked weights", masked=lambda words: words[:-1]), "site 'b' contributed no vector of 5 masked"),
        (replaced("masked weights", masked=lambda words: words.astype(float)), "site 'b' contributed no vector of 5"),
        (replaced("masked weights", meta={"protection": "none"}), "site 'b' contributed .*nothing was opened"),
        (replaced("unmasking shares", survivors=flip), "masks of site 'a' can't be recovered"),
        (replaced("unmasking shares", survivors=lambda rows: rows[:0]), "site 'b' answered 'unmasking shares'"),
    ],
)
def test_an_answer_that_does_not_fit_opens_nothing(spoil, match):
    with pytest.raises(AggregationError, match=match):
        sum_with(spoil)


def test_an_altered_share_of_a_mask_key_opens_nothing():
    with pytest.raises(AggregationError, match="masks of site 'c' can't be recovered"):
        sum_with(replaced("unmasking shares", dropped=flip), silent=("c",))


def test_shares_of_another_key_open_nothing():
    other = []

    def spoil(site, answer):
        if answer.kind == "unmasking shares":
            other.append(answer.arrays["survivors"][:1])  # well-formed shares, but of a self-mask
            return Message(answer.kind, answer.meta, {**answer.arrays, "dropped": other[-1]})
        return answer

    with pytest.raises(AggregationError, match=r"site 'c'.*give another key"):
        sum_with(spoil, silent=("c",))


def test_answers_that_fit_are_summed():
    np.testing.assert_array_equal(sum_with(lambda site, answer: answer).arrays["w"], np.full(4, 3.0))
