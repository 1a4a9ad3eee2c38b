"""Where crypten comes from: an installation, the user's cache, or the package index through pip."""

import logging
import os
import stat
import time
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("omegaconf", reason="needs the extra fedscgen[crypten]")
pytest.importorskip("platformdirs", reason="needs the extra fedscgen[crypten]")

from fedscgen._types import Message
from fedscgen.secure import Contribution, CryptenAggregator
from fedscgen.secure.crypten import _compat as compat

REMEDY = r"pip could not fetch \({}.*: pip install --no-deps crypten==0\.4\.1$"


@pytest.fixture(scope="module")
def wheel():
    return compat._download()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, on a machine where crypten is not installed."""
    monkeypatch.setattr(compat, "find_spec", lambda name: None if name == "crypten" else find_spec(name))
    monkeypatch.setattr(compat, "_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A directory in which alone pip looks for wheels."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


def python_that(does, tmp_path, monkeypatch):
    """Put a script in the place of the interpreter that runs pip."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(compat.sys, "executable", str(script))


def must_not_fetch():
    raise AssertionError("fetched though a copy was there")


def test_parties_run_a_crypten_that_was_fetched_and_kept(cache, tmp_path, monkeypatch):
    with CryptenAggregator(2, timeout=30) as crypten:

        def ask(messages):
            ones = Contribution({"w": np.ones(3)})
            return [(site, crypten.contributor(site).contribute(ones, message)) for site, message in messages.items()]

        opened = crypten.sum(ask, ["a", "b"], Message("task", {"task": "fit"}))
        np.testing.assert_array_equal(opened.arrays["w"], np.full(3, 2.0))
    assert [path.name for path in cache.iterdir()] == ["crypten-0.4.1-py3-none-any.whl"]
    monkeypatch.setattr(compat, "_download", must_not_fetch)
    directory = compat.provide_crypten(tmp_path / "unpacked")
    assert {path.name for path in directory.iterdir()} == {"crypten", "configs"}


def test_an_installed_crypten_takes_precedence(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "find_spec", find_spec if find_spec("crypten") else lambda name: name)
    monkeypatch.setattr(compat, "_download", must_not_fetch)
    assert compat.provide_crypten(tmp_path / "unpacked") is None
    assert not cache.exists()


def test_a_damaged_copy_is_fetched_anew(cache, tmp_path, monkeypatch, wheel):
    cache.mkdir()
    kept = cache / "crypten-0.4.1-py3-none-any.whl"
    kept.write_bytes(wheel[:1000])
    monkeypatch.setattr(compat, "_download", lambda: wheel)
    assert compat.provide_crypten(tmp_path / "unpacked")
    assert kept.read_bytes() == wheel


def test_a_cache_that_can_not_be_written_is_done_without(tmp_path, cache, monkeypatch, wheel, caplog):
    cache.write_text("a file where the directory should be")
    monkeypatch.setattr(compat, "_download", lambda: wheel)
    with caplog.at_level(logging.WARNING):
        assert compat.provide_crypten(tmp_path / "unpacked")
    assert "can't be kept" in caplog.text


def test_a_wheel_that_is_not_the_published_one_is_refused(cache, offline, tmp_path, wheel):
    (offline / "crypten-0.4.1-py3-none-any.whl").write_bytes(wheel + b"\0")
    with pytest.raises(ModuleNotFoundError, match=REMEDY.format("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")):
        compat.provide_crypten(tmp_path / "unpacked")
    assert not cache.exists()


def test_the_digest_is_checked_whatever_pip_says(cache, tmp_path, monkeypatch):
    python_that(
        'for last; do :; done; echo altered > "${last#--dest=}/crypten-0.4.1-py3-none-any.whl"', tmp_path, monkeypatch
    )
    with pytest.raises(ModuleNotFoundError, match=REMEDY.format("pip gave another file")):
        compat.provide_crypten(tmp_path / "unpacked")
    assert not cache.exists()


def test_without_network_one_sentence_names_the_remedy(cache, offline, tmp_path):
    with pytest.raises(ModuleNotFoundError, match=REMEDY.format("ERROR: Could not find a version")):
        compat.provide_crypten(tmp_path / "unpacked")
    assert not cache.exists()


def test_without_pip_one_sentence_names_the_remedy(cache, tmp_path, monkeypatch):
    python_that("echo python: No module named pip >&2; exit 1", tmp_path, monkeypatch)
    with pytest.raises(ModuleNotFoundError, match=REMEDY.format("python: No module named pip")):
        compat.provide_crypten(tmp_path / "unpacked")


def test_a_pip_that_hangs_is_an_error_in_time(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "_SECONDS_TO_FETCH", 0.2)
    python_that("exec sleep 30", tmp_path, monkeypatch)
    begun = time.monotonic()
    with pytest.raises(ModuleNotFoundError, match=REMEDY.format("pip did not end within 0.2 seconds")):
        compat.provide_crypten(tmp_path / "unpacked")
    assert time.monotonic() - begun < 5
