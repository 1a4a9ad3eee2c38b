"""What a SuperNode runs for every message: it starts fast, and reads a site's configuration as strictly as the site."""

import os
import subprocess
import sys
from dataclasses import fields

import pytest

from fedscgen.deployment import SiteConfig
from fedscgen.flower._process import SiteProcessError, ask_site
from fedscgen.flower.client_app import Doorway

NEEDED = {"site": "north", "data": "/data/north.h5ad", "output": "/data/out"}


def test_it_imports_no_federation():
    code = "import sys, fedscgen.flower.client_app; print({'torch', 'scvi', 'anndata'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert answer.stdout.strip() == "set()"


def test_what_it_reads_itself_is_what_the_site_reads():
    of_site = {field.name: field for field in fields(SiteConfig)}
    for field in fields(Doorway):
        assert (field.type, field.default) == (of_site[field.name].type, of_site[field.name].default)


def test_what_it_reads_itself_is_read_strictly():
    config = Doorway.of({**NEEDED, "allow-insecure-channel": True, "min-sites": 3})
    assert (str(config.output), config.allow_insecure_channel) == ("/data/out", True)
    assert not Doorway.of(NEEDED).allow_insecure_channel
    with pytest.raises(ValueError, match="allow_insecure_channel='true': expected true or false"):
        Doorway.of({**NEEDED, "allow-insecure-channel": "true"})
    with pytest.raises(ValueError, match="lacks output"):
        Doorway.of({"site": "north"})


def test_a_misspelt_key_is_told_before_anything_is_done(tmp_path):
    given = {**NEEDED, "output": str(tmp_path), "min-site": 3}
    with pytest.raises(SiteProcessError, match="did not start: ValueError: unknown 'min-site' in --node-config: there"):
        ask_site(given, tmp_path / "run-1", b"a message", watched=os.getpid(), timeout=60)
    assert [path.name for path in (tmp_path / "run-1").iterdir()] == ["site.log"]
