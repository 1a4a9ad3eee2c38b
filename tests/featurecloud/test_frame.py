"""Bytes are read out of a pickle, and nothing in it is executed."""

import pickle
from pathlib import Path

import pytest

from fedscgen.featurecloud._frame import FrameError, read_frame


class Hostile:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 1_000_000])
def test_bytes_come_back_as_they_were(size, protocol):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert read_frame(pickle.dumps(content, protocol=protocol)) == content


@pytest.mark.parametrize("hide", [lambda value: value, lambda value: [b"bytes", value], lambda value: {b"": value}])
def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path, hide):
    data = pickle.dumps(hide(Hostile(tmp_path / "executed")))
    with pytest.raises(FrameError, match="a pickle of something else than bytes"):
        read_frame(data)
    assert not (tmp_path / "executed").exists()
    pickle.loads(data)  # noqa: S301  (that it would have been)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [None, 1, "text", [b"a", b"b"], bytearray(b"a"), {"a": 1}, (b"a",)])
def test_other_values_are_refused(value):
    with pytest.raises(FrameError):
        read_frame(pickle.dumps(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        pickle.dumps(b"content")[:-1],
        pickle.dumps(b"content") + b"more",
        pickle.dumps(b"one")[:-1] + pickle.dumps(b"two")[2:],
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fshort.",  # announces more bytes than there are
        b"\x80\x04" + b"C\x00r\xff\xff\xff\x7f0" * 100 + b"C\x00.",  # would take memory by its numbers
        b"cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_what_is_no_whole_pickle_is_refused(data):
    with pytest.raises(FrameError):
        read_frame(data)
