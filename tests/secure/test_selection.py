"""What may be selected from: whole numbers as keys, and one row of values per key."""

import numpy as np
import pytest

from fedscgen._types import Message
from fedscgen.secure import AggregationError, Contribution, PlainAggregator
from fedscgen.secure._selection import read_selection

KEYS, VALUES = np.array([3.0, 0, 7]), np.ones((3, 2))


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"keys": KEYS}, "values is not there"),
        ({}, "keys, values is not there"),
        ({"keys": KEYS, "values": np.ones((2, 2))}, r"keys of shape \(3,\) and values of shape \(2, 2\)"),
        ({"keys": KEYS, "values": np.ones(3)}, "one row of values per key"),
        ({"keys": KEYS[:, None], "values": VALUES}, "one row of values per key"),
        ({"keys": np.array([3.0, 0.5, 7]), "values": VALUES}, r"keys\[1\] is 0.5: only whole numbers from 0"),
        ({"keys": np.array([3.0, 0, -7]), "values": VALUES}, r"keys\[2\] is -7.0: only whole numbers from 0"),
        ({"keys": np.array([np.nan, 0, 7]), "values": VALUES}, r"keys\[0\] is nan"),
    ],
)
def test_what_can_not_be_selected_from_is_refused(arrays, match):
    with pytest.raises(ValueError, match=match):
        read_selection(arrays)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_keys(dtype):
    keys, values = read_selection({"keys": KEYS.astype(dtype), "values": VALUES})
    np.testing.assert_array_equal(keys, KEYS)
    assert values is VALUES


@pytest.mark.parametrize("name", ["plain", "masked", "crypten"])
def test_every_aggregator_refuses_it_and_names_the_site(name):
    contribution = Contribution({"keys": KEYS / 2, "values": VALUES})
    if name == "plain":
        aggregator = PlainAggregator()
    else:
        pytest.importorskip("cryptography", reason="needs the extra of the same name")
        import fedscgen.secure as secure

        aggregator = secure.MaskedAggregator(reveal_keys=True) if name == "masked" else secure.CryptenAggregator(2)
    contributors = {site: aggregator.contributor(site) for site in ("a", "b")}

    def ask(messages):
        for site, message in messages.items():
            in_task = "task" in message.meta
            contributor = contributors[site]
            yield site, contributor.contribute(contribution, message) if in_task else contributor.answer(message)

    with pytest.raises(AggregationError, match=r"site 'a'.*keys\[0\] is 1.5"), aggregator:
        aggregator.select(ask, ["a", "b"], Message("task", {"task": "statistics"}))
