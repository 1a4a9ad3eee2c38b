import builtins
import hashlib
import logging
import socket

import pooch
import pytest

from fedscgen.datasets import fetch_dataset


@pytest.fixture
def fetch(record, tmp_path):
    def fetch(name="PBMC", **options):
        options = {"cache_dir": tmp_path / "cache", "base_url": record.url, "show_progress": False, **options}
        return fetch_dataset(name, **options)

    return fetch


@pytest.fixture
def content(record):
    return record.files["PBMC.h5ad"]


def ranges(record):
    return [request.get("range") for request in record.asked]


def list_files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once_and_kept(record, fetch, content, tmp_path):
    path = fetch()
    assert path == tmp_path / "cache" / "PBMC.h5ad"
    assert path.read_bytes() == content
    assert fetch() == path
    assert len(record.asked) == 1
    assert list_files(path.parent) == ["PBMC.h5ad"]


def test_downloads_go_to_the_users_cache_by_default(record, fetch, content, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = fetch(cache_dir=None)
    assert path.parent == pooch.os_cache("fedscgen")
    assert path.read_bytes() == content


def test_your_own_file_wins_and_is_never_altered(record, fetch, tmp_path):
    own = tmp_path / "PBMC.h5ad"
    own.write_bytes(b"mine")
    fetch()
    assert fetch(data_dir=tmp_path) == own
    assert own.read_bytes() == b"mine"
    assert len(record.asked) == 1
    assert fetch(data_dir=tmp_path / "elsewhere") != own


def test_a_broken_download_continues_where_it_stopped(record, fetch, content):
    record.cuts = [1000, 2000]
    assert fetch().read_bytes() == content
    assert ranges(record) == [None, "bytes=1000-", "bytes=3000-"]
    assert [request.get("if-range") for request in record.asked] == [None, '"v1"', '"v1"']


def test_the_next_call_continues_a_download_that_was_given_up(record, fetch, content, tmp_path):
    record.cuts = [1000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError, match="1,000 bytes are kept for the next try"):
        fetch()
    assert list_files(tmp_path / "cache") == ["PBMC.h5ad.part", "PBMC.h5ad.part.etag"]
    assert fetch().read_bytes() == content
    assert ranges(record) == [None, *["bytes=1000-"] * 5]
    assert list_files(tmp_path / "cache") == ["PBMC.h5ad"]


def test_a_download_without_stated_length_that_breaks_off_continues(record, fetch, content):
    record.states_length = False
    record.cuts = [1000]
    assert fetch().read_bytes() == content
    assert ranges(record) == [None, "bytes=1000-"]


def test_a_server_that_ignores_ranges_sends_all_again(record, fetch, content):
    record.ranges = False
    record.cuts = [1000, 2000]
    assert fetch().read_bytes() == content
    assert ranges(record) == [None, "bytes=1000-", "bytes=2000-"]


def test_parts_of_two_versions_are_not_joined(record, fetch, content):
    record.cuts = [1000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError):
        fetch()
    changed = record.files["PBMC.h5ad"] = content[:-1] + bytes([content[-1] ^ 1])
    record.etag = '"v2"'
    assert fetch().read_bytes() == changed


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_nothing_is_resumed_that_could_not_be_checked(record, fetch, content, etag):
    """Neither a checksum nor a strong entity tag would show that the parts belong together."""
    record.listed = False
    record.etag = etag
    record.cuts = [1000]
    assert fetch().read_bytes() == content
    assert ranges(record) == [None, None]


def test_a_checksum_is_enough_to_resume(record, fetch, content):
    record.etag = None
    record.cuts = [1000]
    assert fetch().read_bytes() == content
    assert ranges(record) == [None, "bytes=1000-"]


def test_too_long_a_part_of_an_unlisted_file_is_fetched_afresh(record, fetch, content, tmp_path):
    record.listed = False
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "PBMC.h5ad.part").write_bytes(bytes(len(content) + 5))
    (tmp_path / "cache" / "PBMC.h5ad.part.etag").write_text('"v1"')
    assert fetch().read_bytes() == content
    assert ranges(record) == [f"bytes={len(content) + 5}-", None]


def test_a_complete_part_is_not_fetched_again(record, fetch, content, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "PBMC.h5ad.part").write_bytes(content)
    assert fetch().read_bytes() == content
    assert not record.asked


def test_a_busy_server_is_asked_again(record, fetch, content):
    record.statuses = [503, 429]
    assert fetch().read_bytes() == content
    assert len(record.asked) == 3


def test_attempts_end(record, fetch):
    record.statuses = [503] * 20
    with pytest.raises(ConnectionError, match="the server answered 503 Service Unavailable, in the last of 5 attempts"):
        fetch()
    assert len(record.asked) == 5


def test_a_file_with_a_wrong_checksum_is_deleted(record, fetch, content, tmp_path):
    record.checksum = "md5:" + "0" * 32
    with pytest.raises(OSError, match="damaged, and was deleted") as raised:
        fetch()
    assert hashlib.md5(content).hexdigest() in str(raised.value)  # noqa: S324
    assert not list_files(tmp_path / "cache")
    record.checksum = None
    assert fetch().read_bytes() == content


def test_a_file_that_is_too_long_is_deleted(record, fetch, content, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "PBMC.h5ad.part").write_bytes(content + b"more")
    with pytest.raises(OSError, match=rf"{len(content) + 4:,} bytes, but the record states {len(content):,}"):
        fetch()
    assert not list_files(tmp_path / "cache")


def test_a_web_page_is_not_taken_for_a_data_set(record, fetch, tmp_path):
    record.listed = False
    record.files["PBMC.h5ad"] = b"<html>please log in</html>"
    with pytest.raises(OSError, match="its 26 bytes are not an HDF5 file"):
        fetch()
    assert not list_files(tmp_path / "cache")


def test_an_unlisted_file_is_taken_with_a_warning(record, fetch, content, caplog):
    record.listed = False
    with caplog.at_level(logging.WARNING):
        assert fetch().read_bytes() == content
    assert "not compared with a checksum" in caplog.text


@pytest.mark.parametrize("listing", [b"<html>", b"[]", b'{"files": [{"key": "PBMC.h5ad"}]}'])
def test_a_list_of_files_that_makes_no_sense_is_as_none(record, fetch, content, listing, caplog):
    record.listing = lambda: listing
    with caplog.at_level(logging.INFO):
        assert fetch().read_bytes() == content
    assert f"{record.url}/api/records/11489844" in caplog.text


def test_a_file_that_the_record_lacks_names_those_it_has(record, fetch):
    record.files["datasets.zip"] = b"PK"
    with pytest.raises(FileNotFoundError, match=r"does not serve CellLine\.h5ad; it holds PBMC\.h5ad, datasets\.zip"):
        fetch("CellLine")
    assert not record.asked


def test_a_file_that_is_not_found_is_asked_for_once(record, fetch):
    record.statuses = [404, 404]
    with pytest.raises(FileNotFoundError, match=r"it holds PBMC\.h5ad\. .*records/11489844.* data_dir"):
        fetch()
    record.listed = False
    with pytest.raises(FileNotFoundError, match="its list of files can't be had"):
        fetch()
    assert len(record.asked) == 2


def test_offline_says_what_to_do(record, fetch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="refused") as raised:
            fetch(base_url=url)
    message = str(raised.value)
    assert f"{url}/records/11489844" in message
    assert "data_dir" in message


def test_unknown_names_never_become_paths(record, fetch):
    with pytest.raises(ValueError, match=r"unknown data set '\.\./PBMC': choose one of HumanDendriticCells"):
        fetch("../PBMC")
    assert not record.asked


def test_progress_reaches_the_size_of_the_file(record, fetch, content, capsys):
    fetch(show_progress=True)
    assert "PBMC.h5ad" in capsys.readouterr().out


def test_missing_pooch_names_the_extra(fetch, monkeypatch):
    real = builtins.__import__

    def without_pooch(name, *args, **options):
        if name == "pooch":
            raise ModuleNotFoundError("No module named 'pooch'", name="pooch")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_pooch)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"\.\[benchmark\]\""):
        fetch()
