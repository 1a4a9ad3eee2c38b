"""What init writes is an app for Flower itself, and its settings are those that the coordinator reads."""

from __future__ import annotations

import io
import re
import tomllib
import zipfile

import pytest

from fedscgen.flower._config import RunConfig
from fedscgen.flower._project import write_project

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.fixture
def app(tmp_path):
    write_project(tmp_path / "app", n_sites=5)
    return tmp_path / "app"


def settings_of(app):
    return tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def files_in_bundle(app):
    from flwr.cli.build import build_fab_from_disk

    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as bundle:
        return set(bundle.namelist())


def test_flower_builds_a_bundle_of_it(app):
    assert files_in_bundle(app) == {"pyproject.toml", "README.md", ".info/CONTENT"}


def test_flower_finds_both_components_and_misses_nothing(app):
    from flwr.cli.config_utils import load_and_validate

    config, warnings = load_and_validate(app / "pyproject.toml", check_module=True)
    assert warnings == []
    assert config["project"]["dependencies"] == ["fedscgen[flower]"]


def test_keys_cells_and_results_stay_out_of_the_bundle(app):
    for name in ("keys/sites/a/auth.key", "keys/notes.md", "fedscgen_result/model/model.json", "cells.h5ad", "a.key"):
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    assert files_in_bundle(app) == {"pyproject.toml", "README.md", ".info/CONTENT"}


def test_the_settings_are_the_coordinator_s_defaults_but_for_the_sites(app):
    assert RunConfig.of(settings_of(app)) == RunConfig(n_sites=5, min_sites=2)


def test_every_setting_that_the_coordinator_reads_is_there_and_explained(app):
    known = [name.replace("_", "-") for name in RunConfig.__dataclass_fields__]
    assert list(settings_of(app)) == known
    lines = (app / "pyproject.toml").read_text().partition("[tool.flwr.app.config]")[2].strip().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        assert line.startswith("#") or before.startswith("# "), f"{line} is not explained"


def test_the_readme_names_only_settings_and_options_that_there_are(app):
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    readme = (app / "README.md").read_text()
    assert '"num-supernodes=5"' in readme
    for program, parser in (("superlink", _parse_args_run_superlink()), ("supernode", _parse_args_run_supernode())):
        command = re.search(rf"flower-{program} (?:.*\\\n)*.*\n", readme).group()
        for option in re.findall(r"--[a-z-]+", command):
            assert option in parser._option_string_actions, f"flower-{program} has no {option}"


def test_an_existing_folder_is_left_alone(app):
    (app / "pyproject.toml").write_text("mine")
    with pytest.raises(FileExistsError, match="app exists: choose another place"):
        write_project(app)
    assert (app / "pyproject.toml").read_text() == "mine"
    assert list(app.parent.iterdir()) == [app], "no temporary folder is left"


def test_a_federation_of_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1 sites: a federation has at least 2"):
        write_project(tmp_path / "app", n_sites=1)
    assert not list(tmp_path.iterdir())
