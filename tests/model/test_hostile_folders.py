"""Model folders that somebody else has made: each ends in CheckpointError, in bounded memory, and runs nothing."""

import json
import os
import struct
import tracemalloc
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch

from cells import SMALL, make_adata
from fedscgen.model import CheckpointError, FedSCGEN, read_model, read_published_weights

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The files of a model: its description, and its weights."""
    adata = make_adata()
    FedSCGEN.setup_anndata(adata)
    model = FedSCGEN(adata, **SMALL)
    folder = tmp_path_factory.mktemp("good") / "model"
    model.save(folder)
    with np.load(folder / "weights.npz") as arrays:
        return json.loads((folder / "model.json").read_text()), dict(arrays)


@pytest.fixture
def folder(good, tmp_path):
    """A folder of such files, to be spoilt."""
    description, arrays = good
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    np.savez(tmp_path / "model" / "weights.npz", **arrays)
    return tmp_path / "model"


def refuse(folder, read=read_model):
    """The error with which it is refused, without much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            read(folder)
        assert tracemalloc.get_traced_memory()[1] < 100 * MEBIBYTE
    finally:
        tracemalloc.stop()
    return str(error.value)


def header(shape, dtype="<f4"):
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_members(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)


def test_what_is_spoilt_here_can_be_read_otherwise(folder, good):
    saved = read_model(folder)
    assert saved.weights.keys() == good[1].keys()
    for name, array in saved.weights.items():
        np.testing.assert_array_equal(array, good[1][name])
        assert array.flags.writeable


def test_arrays_of_either_order_and_of_no_values_are_read(folder, good, tmp_path):
    description = {**good[0], "architecture": "another", "model": {}}
    (folder / "model.json").write_text(json.dumps(description))
    given = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "none": np.empty((0, 3)), "one": np.float32(2)}
    np.savez(folder / "weights.npz", **given)
    for name, array in read_model(folder).weights.items():
        np.testing.assert_array_equal(array, given[name])


def test_a_file_that_unpacks_to_300_mebibytes_is_refused_unread(folder):
    path = folder / "weights.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(header((300 * MEBIBYTE // 4,)))
        for _ in range(300):
            file.write(bytes(MEBIBYTE))
    assert path.stat().st_size < MEBIBYTE
    assert "'x.npy' compressed: store it as it is" in refuse(folder)


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("x.npy", header((10**15,)))], "claims the shape (1000000000000000,), which doesn't fit its 128 bytes"),
        ([("x.npy", header((0, 2**60)))], "holds nothing in a shape of huge dimensions"),
        ([("x.npy", header((1,) * 9) + bytes(4))], "has a shape of 9 dimensions"),
        ([("x.npy", header((1,), "|O") + bytes(8))], "holds object: expected numbers"),
        ([("x.npy", header((1,), "<U9") + bytes(36))], "holds <U9: expected numbers"),
        ([("x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)], "is no array"),
        ([("x.npy", b"\x93NUMPY\x02\x00" + b"\xff" * 4)], "its format is (2, 0)"),
        ([("x.npy", b"")], "is no array"),
        ([("x.txt", b"")], "its name doesn't end with .npy"),
        ([("../../etc/x.npy", b"")], "has a member of the name"),
        ([("/etc/x.npy", b"")], "has a member of the name"),
        ([("C:\\x.npy", b"")], "has a member of the name"),
        ([("x.npy", header((1,)) + bytes(4))] * 2, "'x.npy' twice"),
        ([(f"{i}.npy", b"") for i in range(4097)], "has 4097 members"),
        ([(f"{i:0200}.npy", b"") for i in range(17_000)], "has a directory of"),
        ([], "does not fit model.json: fewer arrays than layers"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_not_what_they_seem_are_refused(folder, members, fault):
    write_members(folder / "weights.npz", members)
    assert fault in refuse(folder)


def test_links_inside_and_outside_are_refused(folder):
    link = zipfile.ZipInfo("x.npy")
    link.external_attr = 0o120777 << 16
    write_members(folder / "weights.npz", [(link, b"/etc/passwd")])
    assert "is encrypted or a link" in refuse(folder)
    for name in ("weights.npz", "model.json"):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
        assert f"{name} is no file but a link" in refuse(folder)
    (folder / "model.json").unlink()
    os.mkfifo(folder / "model.json")
    assert "model.json is no file" in refuse(folder)


def test_members_that_share_their_bytes_are_refused(folder, good):
    """One local file, to which a thousand entries of the directory point."""
    path = folder / "weights.npz"
    content = header((MEBIBYTE // 4,)) + bytes(MEBIBYTE)
    write_members(path, [("a.npy", content)])
    data = path.read_bytes()
    begin = data.index(b"PK\1\2")
    entry = data[begin : data.index(b"PK\5\6")]
    entries = b"".join(
        struct.pack("<28sH16s", entry[:28], 9, entry[30:46]) + f"{i:05}.npy".encode() for i in range(1000)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(entries), begin, 0)
    path.write_bytes(data[:begin] + entries + end)
    assert "claims to hold" in refuse(folder)


def test_missing_and_further_arrays_are_refused_by_name(folder, good):
    arrays = dict(good[1])
    first = sorted(arrays)[0]
    np.savez(folder / "weights.npz", **{name: array for name, array in arrays.items() if name != first})
    assert f"'{first}' has shape none, as it is missing" in refuse(folder)
    np.savez(folder / "weights.npz", spy=np.zeros(2), **arrays)
    assert "'spy' has shape (2,), expected no such array" in refuse(folder)
    np.savez(folder / "weights.npz", **{**arrays, first: np.zeros(3, np.float32)})
    assert f"'{first}' has shape (3,), expected" in refuse(folder)


def test_a_flipped_bit_is_noticed(folder):
    path = folder / "weights.npz"
    data = bytearray(path.read_bytes())
    data[data.index(b"NUMPY") + 150] ^= 1
    path.write_bytes(data)
    assert "damaged" in refuse(folder)


LANDMARKS = {"kind": "landmarks", "labels": ["a"], "types": [0, 7], "positions": [[0.0]], "n_cells": [1.0]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"references": {"labels": 5}}, "references: dict has no 'kind'"),
        ({"references": {"kind": "landmarks"}}, "landmarks: 'labels' is missing"),
        ({"references": {"kind": "mean", "labels": 5, "means": [], "n_cells": None}}, "'labels' is int"),
        ({"references": {**LANDMARKS, "classifier": {}, "label_noise": 0}}, "classifier: 'means' is missing"),
        ({"genes": 5}, "model.json: 'genes' is int: expected a list of at most 200000"),
        ({"genes": ["a", "a"]}, "texts that all differ"),
        ({"genes": ["a"]}, "weights.npz does not fit model.json"),
        ({"setup": {"zz": 1}}, "'setup' is dict of 1: expected a table: batch_key"),
        ({"setup": {"layer": 1}}, "'setup' is dict of 1"),
        ({"model": []}, "'model' is list of 0: expected a table"),
        ({"model": {"n_hidden": 10**9}}, "'n_hidden' is int: expected a whole number from 1 to 100000"),
        ({"model": {"n_hidden": 99_999}}, "does not fit model.json"),
        ({"model": {"n_layers": 99_999}}, "fewer arrays than layers"),
        ({"model": {"normalization": "magic"}}, "unknown normalization 'magic'"),
        ({"model": {"spy": 1}}, "unknown entry 'spy'"),
        ({"architecture": 5}, "'architecture' is int"),
        ({"more": 1}, "unknown entry 'more'"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused_by_name(folder, good, change, fault):
    (folder / "model.json").write_text(json.dumps({**good[0], **change}))
    assert fault in refuse(folder)


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b"\xff\xfe{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"5", b"null", b'{"a":' + b"1" * 5000 + b"}"],
)
def test_a_description_that_is_no_proper_json_is_refused(folder, content):
    (folder / "model.json").write_bytes(content)
    assert "holds a damaged or foreign model" in refuse(folder)


def test_a_description_that_is_too_large_is_refused(folder):
    with (folder / "model.json").open("wb") as file:
        file.truncate(2**40)
    assert "is the most" in refuse(folder)


def test_published_weights_that_are_not_what_they_seem_are_refused(tmp_path):
    path = tmp_path / "model_params.pt"
    huge = torch.zeros(1).expand(10**6, 10**6)
    for state, fault in (
        ({"w": huge}, "its tensors would take"),
        ({"w": torch.zeros(1, dtype=torch.float16).expand(10**6, 10**6)}, "its tensors would take"),
        ({"w": torch.zeros(3).to_sparse()}, "is no tensor with a name"),
        ({5: torch.zeros(3)}, "is no tensor with a name"),
        ([torch.zeros(3)], "it holds list"),
    ):
        torch.save(state, path)
        assert fault in refuse(path, read_published_weights)
    torch.save({"w": torch.zeros(MEBIBYTE)}, path)
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    write_members(path, members, compression=zipfile.ZIP_DEFLATED)
    assert "compressed: store it as it is" in refuse(path, read_published_weights)
    torch.save({"w": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    assert "is no zip file" in refuse(path, read_published_weights)
