"""What init writes is an app for Flower itself, and its settings are those that the coordinator reads."""

from __future__ import annotations

import inspect
import io
import re
import tomllib
import zipfile
from dataclasses import dataclass, replace

import pytest

from fedscgen._options import names_of, read_options
from fedscgen.deployment import CoordinatorConfig
from fedscgen.federation import FederationSettings, SimulationSettings, write_settings
from fedscgen.flower._app_config import AppConfig
from fedscgen.flower._project import choose_settings, write_project
from fedscgen.model import FedSCGEN

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
    assert config["project"]["dependencies"] == [], "nothing is installed from an index at a SuperNode"


def test_keys_cells_and_results_stay_out_of_the_bundle(app):
    for name in ("keys/sites/a/auth.key", "keys/notes.md", "fedscgen_result/model/model.json", "cells.h5ad", "a.key"):
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    assert files_in_bundle(app) == {"pyproject.toml", "README.md", ".info/CONTENT"}


def read_app(app, *run_config):
    """What the coordinator reads when the app is run with these options of ``flwr run --run-config``."""
    from flwr.common.config import get_fused_config_from_dir, parse_config_args

    given = get_fused_config_from_dir(app, parse_config_args(list(run_config)))
    return read_options(AppConfig, given, "the run configuration").coordinator


def with_whole_model(settings):
    """The settings with all keyword arguments of the network."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(FedSCGEN).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return replace(settings, model={**defaults, **settings.model})


def test_the_settings_are_the_coordinator_s_defaults_but_for_the_sites(app):
    defaults = CoordinatorConfig(n_sites=5)
    assert read_app(app) == replace(defaults, settings=with_whole_model(defaults.settings))


def test_every_setting_that_the_coordinator_reads_is_there_and_explained(app):
    known = [name.replace("_", "-") for name in names_of(AppConfig)]
    assert sorted(settings_of(app)) == sorted(known)
    assert set(names_of(FederationSettings)) <= set(names_of(AppConfig))
    lines = (app / "pyproject.toml").read_text().partition("[tool.flwr.app.config]")[2].strip().splitlines()
    settings, _, network = "\n".join(lines).partition("\n[tool.flwr.app.config.model]\n")
    for text in (settings.splitlines(), network.splitlines()):
        for before, line in zip(["", *text], text, strict=False):
            assert line.startswith("#") or not line or before.startswith("# "), f"{line} is not explained"
    named = [line for line in network.splitlines() if not line.startswith("#")]
    assert len(named) == len(inspect.signature(FedSCGEN).parameters) - 1


def test_a_tuned_federation_can_be_deployed(tmp_path):
    """As it stands in Python, by way of a simulation's file of settings and of the app's file."""
    tuned = FederationSettings(
        n_rounds=5, lr=0.002, lr_decay=0.9, batch_size=64, fixed_batches=True, strategy="fedavg", batchnorm="local",
        server_optimizer="adam", proximal_weight=0.1, restore_best_epoch=False, reference="mean", label_noise=0.1,
        early_stopping_patience=3, min_sites=3, genes="union", n_top_genes=50, gene_list=("CD3E", "MS4A1"),
            target_sum=1e5, seed=7, model={"n_latent": 30, "kl_weight": 1e-5},
    )  # fmt: skip
    unchanged = [name for name, value in vars(FederationSettings()).items() if getattr(tuned, name) == value]
    assert unchanged == ["n_epochs", "unaligned_sites", "architecture"]
    (tmp_path / "tuned.toml").write_text(write_settings(SimulationSettings(tuned)))
    write_project(tmp_path / "app", n_sites=4, settings=choose_settings(str(tmp_path / "tuned.toml")).federation)
    config = read_app(tmp_path / "app")
    assert config.settings == with_whole_model(tuned)
    assert config.n_sites == 4


def test_every_setting_can_be_changed_for_a_single_run(app):
    changes = 'lr=0.1 early-stopping-patience=2 seed="" join-timeout=20 sites="a, b" n-sites=2 model.n-latent=20'
    config = read_app(app, changes)
    assert (config.settings.lr, config.settings.early_stopping_patience, config.settings.seed) == (0.1, 2, None)
    assert (config.join_timeout, config.sites, config.n_sites) == (20.0, ("a", "b"), 2)
    assert config.settings.model["n_latent"] == 20
    with pytest.raises(ValueError, match=r"model\.n-latents"):
        read_app(app, "model.n-latents=20")
    with pytest.raises(ValueError, match="lr='fast': expected a number"):
        read_app(app, 'lr="fast"')


@dataclass(frozen=True)
class MoreSettings(FederationSettings):
    """Settings that a later version might have.

    Parameters
    ----------
    clip
        Largest norm of a site's gradient. None: any.
    """

    clip: float | None = None


def test_a_new_setting_needs_no_edit_here(tmp_path):
    write_project(tmp_path / "app", settings=MoreSettings(min_sites=2, clip=0.5))
    assert settings_of(tmp_path / "app")["clip"] == 0.5
    assert (
        '# Largest norm of a site\'s gradient. "": any.\nclip = 0.5\n' in (tmp_path / "app/pyproject.toml").read_text()
    )


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
