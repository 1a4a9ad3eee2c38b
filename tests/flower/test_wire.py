from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedscgen._types import Message, WireFormatError
from fedscgen.flower._wire import unwrap, wrap


@given(st.binary(min_size=1, max_size=2000))
def test_bytes_survive_the_wrapping(data):
    assert unwrap(wrap(data)) == data


def test_a_message_survives_the_wrapping():
    message = Message("model weights", {"round": 2}, {"weight": np.arange(6.0).reshape(2, 3)})
    again = Message.from_bytes(unwrap(wrap(message.to_buffer())))
    assert (again.kind, again.meta) == (message.kind, message.meta)
    np.testing.assert_array_equal(again.arrays["weight"], message.arrays["weight"])


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"fedscgen": ConfigRecord({"fedscgen": b"bytes"})}),
        RecordDict({"fedscgen": ArrayRecord({"fedscgen": Array(np.zeros(3))})}),
        RecordDict({"other": ArrayRecord({"fedscgen": Array("uint8", (1,), "fedscgen message", b"x")})}),
    ],
)
def test_foreign_records_are_refused(records):
    with pytest.raises(WireFormatError, match="not a fedscgen message"):
        unwrap(records)
