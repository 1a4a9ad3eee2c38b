"""What ``fedscgen featurecloud init`` writes. No Docker here: no image is built of it.

check_recipe.py lints the Dockerfile, and installs what it does into an environment of its own.
"""

import ast
import os
import re
import shutil
import subprocess
from configparser import ConfigParser

import pytest
from typer.testing import CliRunner

from cells import make_adata
from fedscgen.cli import app
from fedscgen.featurecloud._config import Place, read_config
from pages import ROOT

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


@pytest.fixture
def image(tmp_path):
    result = CliRunner().invoke(app, ["featurecloud", "init", str(tmp_path / "image")])
    assert result.exit_code == 0, result.output
    return tmp_path / "image"


def test_it_is_written_once(image, tmp_path):
    again = CliRunner().invoke(app, ["featurecloud", "init", str(image)])
    assert again.exit_code == 2
    assert "choose another place" in again.output


def test_the_dockerfile_copies_what_is_there_and_installs_as_the_readme_of_the_package(image):
    dockerfile = (image / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE)
    assert {path for path in copied if path != "wheels/"} == {"nginx.conf", "supervisord.conf", "main.py"}
    assert all((image / path).exists() for path in copied if path != "wheels/")
    version = re.search(r"^FROM python:3\.(\d+)-slim", dockerfile)
    assert int(version[1]) >= 11
    torch = re.search(r"torch==[\d.]+", (ROOT / "README.md").read_text())[0]
    assert torch in dockerfile
    assert "--no-deps FeatureCloud==0.1.0" in dockerfile


def test_the_program_is_started_once_and_is_the_package_s(image):
    programs = ConfigParser()
    programs.read(image / "supervisord.conf")
    assert programs["program:app"]["command"] == "python3 -u /app/main.py"
    assert programs["program:app"]["autorestart"] == "false"
    (imported,) = [
        node for node in ast.walk(ast.parse((image / "main.py").read_text())) if isinstance(node, ast.ImportFrom)
    ]
    assert (imported.module, imported.names[0].name) == ("fedscgen.featurecloud.app", "main")


@pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")
def test_nginx_takes_its_configuration(image, tmp_path):
    text = (image / "nginx.conf").read_text().replace("/run/nginx.pid", str(tmp_path / "pid"))
    (tmp_path / "nginx.conf").write_text(text)
    told = subprocess.run(  # noqa: S603
        [NGINX, "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, check=False
    )
    assert "syntax is ok" in told.stderr, told.stderr


def test_the_example_of_a_configuration_is_read(image, tmp_path):
    make_adata().write_h5ad(image / "raw.h5ad")
    config = read_config(Place(image, tmp_path / "output", tmp_path, "client", 3))
    assert config.coordinator.settings.n_rounds == 8
