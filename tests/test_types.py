"""The wire format: what goes in comes out, and nothing else is read."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedscgen._types import Message, References, WireFormatError

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint64, np.uint8, np.bool_])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
META = st.dictionaries(st.text(), st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner)), max_size=3)


@given(st.text(), META, st.dictionaries(st.text(), ARRAYS, max_size=4))
def test_messages_survive_the_wire(kind, meta, arrays):
    message = Message.from_bytes(Message(kind, meta, arrays).to_bytes())
    assert (message.kind, message.meta) == (kind, meta)
    assert message.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert message.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(message.arrays[name], array)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data):
    with pytest.raises(WireFormatError):
        Message.from_bytes(data)


@given(st.data())
def test_cut_off_and_lengthened_messages_are_refused(data):
    whole = Message("weights", {"a": 1}, {"w": np.arange(6.0)}).to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(WireFormatError):
        Message.from_bytes(whole[:cut])
    with pytest.raises(WireFormatError, match="1 bytes follow the last array"):
        Message.from_bytes(whole + b"x")


@pytest.mark.parametrize(
    "header",
    [
        {"kind": "x", "meta": {}, "arrays": [["a", "|O", [1]]]},
        {"kind": "x", "meta": {}, "arrays": [["a", "<f8", [-1]]]},
        {"kind": "x", "meta": {}, "arrays": [["a", "<f8", [10**12, 10**12]]]},
        {"kind": "x", "meta": {}, "arrays": [["a"]]},
        {"kind": "x", "meta": {}},
        [],
    ],
)
def test_headers_that_lie_are_refused(header):
    encoded = json.dumps(header).encode()
    with pytest.raises(WireFormatError):
        Message.from_bytes(b"FSG1" + struct.pack("<I", len(encoded)) + encoded)


def test_objects_never_cross_the_wire():
    with pytest.raises(WireFormatError, match="array 'a' has dtype object, which may not cross the wire"):
        Message("x", {}, {"a": np.array([{}])}).to_bytes()


@given(st.integers(0, 4), st.booleans())
def test_references_survive_json(n_labels, counted):
    rng = np.random.default_rng(n_labels)
    labels = tuple(f"type{i}" for i in range(n_labels))
    counts = rng.integers(1, 9, n_labels) if counted else None
    references = References(labels, rng.normal(size=(n_labels, 3)), counts, "mean")
    read = References.from_json(json.loads(json.dumps(references.to_json())))
    assert (read.labels, read.kind) == (labels, "mean")
    np.testing.assert_array_equal(read.means.ravel(), references.means.ravel())
    assert (read.n_cells is None) == (counts is None)
