"""The wire format: what goes in comes out, and nothing else is read, nor more than the limits allow."""

import json
import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedscgen import _message
from fedscgen._message import Message, WireFormatError

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint64, np.uint8, np.bool_])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
WHOLE = st.integers(-(2**64) + 1, 2**64 - 1)
META = st.dictionaries(st.text(), st.recursive(st.text() | WHOLE, lambda inner: st.lists(inner)), max_size=3)


def write(header, rest=b""):
    """Bytes with this header, whatever it is."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"FSG1" + struct.pack("<I", len(encoded)) + encoded + rest


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
    with pytest.raises(WireFormatError):
        Message.from_bytes(write(header))


def test_objects_never_cross_the_wire():
    with pytest.raises(WireFormatError, match="array 'a' has dtype object, which may not cross the wire"):
        Message("x", {}, {"a": np.array([{}])}).to_bytes()


def array(dtype="<f4", shape=(), name="a"):
    return {"kind": "k", "meta": {}, "arrays": [[name, dtype, list(shape)]]}


def holding(value):
    """A header whose meta holds this JSON."""
    return b'{"kind": "k", "arrays": [], "meta": {"a": ' + value + b"}}"


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (holding(b"[" * 100_000), "a header of 100002 levels: 32 is the most"),
        (holding(b"[" * 40 + b"]" * 40), "a header of 42 levels"),
        (holding(b"[" + b"1," * 10**6 + b"1]"), "a header of about 10000"),
        (holding(b"[" + b'"a",' * 500_000 + b"1]"), "a header of about 500005 texts: 500000 is the most"),
        (holding(b'"' + b"x" * 10_001 + b'"'), "a text of 10001 characters: 10000 is the most"),
        (holding(rb'"\ud800"'), "half a character"),
        (holding(rb'{"\udc00": 1}'), "half a character"),
        (rb'{"kind": "\ud800", "arrays": [], "meta": {}}', "half a character"),
        (holding(b'"\xff"'), "not JSON: 'utf-8' codec"),
        (holding(b'"\xed\xa0\x80"'), "not JSON: 'utf-8' codec"),
        (holding(b"NaN"), "NaN is no value"),
        (holding(b"-Infinity"), "-Infinity is no value"),
        (holding(b"1e999"), "a number is not finite"),
        (holding(b"1" * 5000), "not JSON: Exceeds the limit"),
        (holding(b"-18446744073709551616"), "doesn't fit 64 bits"),
        (holding(b'{"b": 1, "b": 2}'), "a name occurs twice"),
        (b'{"kind": "k", "kind": "l", "arrays": [], "meta": {}}', "a name occurs twice"),
        ({"kind": "k", "meta": {}, "arrays": [], "more": 1}, "other parts than kind, meta and arrays"),
        ({"kind": 5, "meta": {}, "arrays": []}, "kind is no text of at most 256"),
        ({"kind": "k" * 257, "meta": {}, "arrays": []}, "kind is no text of at most 256"),
        ({"kind": "k", "meta": [], "arrays": []}, "meta is list"),
        ({"kind": "k", "meta": {}, "arrays": {}}, "not a list of at most 4096 arrays"),
        ({"kind": "k", "meta": {}, "arrays": [[str(i), "|u1", [0]] for i in range(4097)]}, "not a list of at most"),
        ({"kind": "k", "meta": {}, "arrays": ["abc"]}, "listed without its name"),
        ({"kind": "k", "meta": {}, "arrays": [["a", "|u1", [0]]] * 2}, "array 'a' is there twice"),
        (array(name="x" * 257), "an array's name is no text"),
        (array(name=["a"]), "an array's name is no text"),
        (array(dtype=["<f4"]), "of dtype"),
        (array(shape=[1] * 9), "no shape of at most 8 dimensions"),
        (array(shape=[2] * 10**5), "no shape of at most 8 dimensions"),
        (array(shape=[True]), "a dimension that is no size"),
        (array(shape=[1.0]), "a dimension that is no size"),
        (array(shape=[2**63]), "a dimension that is no size"),
        (array(shape=[0, 2**40]), "holds nothing in a shape of huge dimensions"),
        (array(shape=[2**40, 2**40]), "truncated: array 'a' ends at byte"),
    ],
)
def test_what_would_become_too_much_is_refused_before_it_is_read(header, fault):
    with pytest.raises(WireFormatError, match=re.escape(fault)):
        Message.from_bytes(write(header))


def test_a_header_that_announces_more_than_the_limit_is_not_looked_for():
    with pytest.raises(WireFormatError, match=r"4294967295 bytes is announced: 33554432 is the most"):
        Message.from_bytes(b"FSG1" + b"\xff" * 4 + b"{}")
    for data in (b"", b"FSG1", b"FSG1\x01"):
        with pytest.raises(WireFormatError, match="not a fedscgen message"):
            Message.from_bytes(data)


def test_truth_values_are_zero_or_one():
    assert Message.from_bytes(write(array("|b1", [2]), b"\0\1")).arrays["a"].tolist() == [False, True]
    with pytest.raises(WireFormatError, match="truth values holds others"):
        Message.from_bytes(write(array("|b1", [2]), b"\0\2"))


def test_brackets_and_commas_in_texts_do_not_count():
    meta = {"a": "[" * 100 + '"\\' + "[" * 100 + "," * 9000, "b\\": '{"'}
    assert Message.from_bytes(Message("k", meta).to_bytes()).meta == meta


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (Message("k", {"a": float("nan")}), "a number is not finite"),
        (Message("k", {"a": "\ud800"}), "half a character"),
        (Message("k", {"a": object()}), "message 'k' can't be written"),
        (Message("k", {"a": ["x" * 9000] * 4000}), "a header of 360"),
        (Message("k", {}, {"a": np.zeros([1] * 9)}), "no shape of at most 8 dimensions"),
        (Message("k" * 257), "kind is no text"),
    ],
)
def test_what_would_be_refused_is_not_written(message, fault):
    with pytest.raises(WireFormatError, match=fault):
        message.to_bytes()


def test_as_many_genes_as_a_message_may_name_fit():
    genes = [f"{i:016d}" for i in range(200_000)]
    assert Message.from_bytes(Message("settings", {"genes": genes}).to_bytes()).meta["genes"] == genes
    assert len(genes) < _message.MOST_VALUES
