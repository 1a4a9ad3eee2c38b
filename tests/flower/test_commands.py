"""``fedscgen flower``: what it writes, what it says next, and what it says of bad input."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def run(*arguments):
    from typer.testing import CliRunner  # typer 0.20 warns when it is imported with click 8.5

    from fedscgen.cli import app

    return CliRunner().invoke(app, ["flower", *[str(argument) for argument in arguments]])


def said(result):
    return re.sub(r"\s+", " ", result.output + (result.stderr or ""))


def test_init_writes_an_app_for_so_many_sites(tmp_path):
    result = run("init", tmp_path / "app", "--sites", 4)
    assert result.exit_code == 0, said(result)
    assert str(tmp_path / "app" / "README.md") in result.output.replace("\n", "")
    settings = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    assert settings["tool"]["flwr"]["app"]["config"]["n-sites"] == 4


def test_init_takes_settings_by_name_or_from_a_file(tmp_path):
    (tmp_path / "tuned.toml").write_text("[federation]\nlr = 0.01\n[federation.model]\nn-latent = 20\n")
    for source, lr, n_latent, linear_path in (("paper", 1e-3, 10, False), (tmp_path / "tuned.toml", 0.01, 20, True)):
        folder = tmp_path / f"app-{lr}"
        result = run("init", folder, "--settings", source)
        assert result.exit_code == 0, said(result)
        config = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
        assert (config["lr"], config["min-sites"], config["seed"]) == (lr, "", 0)
        assert (config["model"]["n-latent"], config["model"]["linear-path"]) == (n_latent, linear_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning-rate = 0.01", "unknown 'learning-rate' in"),
        ("lr = 'fast'", "lr='fast': expected a number"),
        ("model.latent = 2", "unknown setting 'latent' of 'fedscgen'"),
        ("min-sites = 4", "min_sites=4: at most n_sites=3"),
        ("lr =", "is not TOML"),
    ],
)
def test_init_refuses_bad_settings_in_one_line_and_writes_nothing(tmp_path, content, message):
    (tmp_path / "tuned.toml").write_text(f"[federation]\n{content}")
    result = run("init", tmp_path / "app", "--settings", tmp_path / "tuned.toml")
    assert result.exit_code == 2
    assert message in said(result)
    assert not (tmp_path / "app").exists()


def test_init_says_what_each_site_has_to_say_itself(tmp_path):
    assert "site.toml: denoise=true" in said(run("init", tmp_path / "paper", "--settings", "paper"))
    (tmp_path / "own.toml").write_text('[site]\nlabels-key = "kind"\n[correction]\nexpression = ""\n')
    answer = said(run("init", tmp_path / "own", "--settings", tmp_path / "own.toml"))
    assert 'site.toml: labels-key="kind", expression=""' in answer
    assert "site.toml" not in said(run("init", tmp_path / "default"))


def test_init_refuses_what_flower_cannot_carry(tmp_path, monkeypatch):
    from fedscgen.federation import FederationSettings
    from fedscgen.flower._project import write_project

    settings = FederationSettings(min_sites=2)
    monkeypatch.setattr(FederationSettings, "spell_out", lambda self: self)
    object.__setattr__(settings, "model", {"widths": [64, 32]})
    with pytest.raises(ValueError, match=r"widths=\[64, 32\] can't be set over Flower, which takes neither lists nor"):
        write_project(tmp_path / "app", settings=settings)


def test_init_says_which_settings_there_are(tmp_path):
    result = run("init", tmp_path / "app", "--settings", "papper")
    assert result.exit_code == 2
    assert "Error: no settings 'papper': neither a file nor one of 'default', 'components', 'paper'" in said(result)


def test_checklist_prints_the_list_of_a_ledger(tmp_path):
    columns, row = "round,sender,receiver,kind,shape,bytes,protection", ",a,server,settings,names and settings,9,none"
    (tmp_path / "ledger.csv").write_text(f"{columns}\n{row}\n")
    result = run("checklist", tmp_path / "ledger.csv", "--site", "a")
    assert result.exit_code == 0, said(result)
    assert result.output.startswith("# What has left site a")


def test_init_refuses_a_folder_that_exists_in_one_line(tmp_path):
    result = run("init", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert "exists: choose another place" in said(result)


def test_keys_makes_them_and_says_that_they_are_for_a_trial(tmp_path):
    result = run("keys", tmp_path / "keys", "--host", "10.0.0.1", "--site", "a", "--site", "b", "--days", 2)
    assert result.exit_code == 0, said(result)
    assert {path.name for path in (tmp_path / "keys" / "sites").iterdir()} == {"a", "b"}
    assert "for a trial only" in said(result)
    assert "your institution's certificate authority" in said(result)


def test_the_next_steps_are_commands_that_flower_takes(tmp_path):
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    folder = tmp_path / "my keys"
    result = run("keys", folder, "--host", "::1", "--site", "a", "--site", "b")
    commands = [
        shlex.split(line) for line in result.output.replace("\\\n", " ").splitlines() if line.startswith("  fl")
    ]
    superlink = next(command for command in commands if command[0] == "flower-superlink")
    parsed = _parse_args_run_superlink().parse_args(superlink[1:])
    assert parsed.enable_supernode_auth
    assert parsed.ssl_keyfile == str(folder / "superlink" / "server.key")
    supernodes = [command for command in commands if command[0] == "flower-supernode"]
    assert len(supernodes) == 2
    assert _parse_args_run_supernode().parse_args(supernodes[0][1:]).superlink == "[::1]:8000"
    registered = [command[3] for command in commands if command[:3] == ["flwr", "supernode", "register"]]
    assert registered == [str(folder / "sites" / site / "auth.pub") for site in ("a", "b")]


def test_the_sites_of_the_next_steps_say_what_a_site_has_to_say(tmp_path):
    from flwr.common.config import parse_config_args

    from fedscgen._options import read_options
    from fedscgen.flower.client_app import RelayConfig

    result = run("keys", tmp_path / "keys", "--host", "localhost", "--site", "a")
    configured = re.search(r"--node-config '(.*)'", result.output).group(1)
    given = read_options(RelayConfig, parse_config_args([configured]), "--node-config")
    assert str(given.socket) == "/run/fedscgen/a.sock"


def test_keys_refuses_a_bad_host_in_one_line_and_writes_nothing(tmp_path):
    result = run("keys", tmp_path / "keys", "--host", "a:8000", "--site", "a")
    assert result.exit_code == 2
    assert "Error: host 'a:8000' is neither a name nor an IP address" in said(result)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["init"], ["keys", "--host", "a", "--site", "b"]])
def test_without_flower_it_says_what_to_install(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # nothing can be found there
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "flwr"]:
        monkeypatch.delitem(sys.modules, name)
    result = run(arguments[0], tmp_path / "new", *arguments[1:])
    assert result.exit_code == 2
    remedy = 'add the extra "flower" in a clone of the repository: pip install ".[flower]"'
    assert f"Error: this needs flwr: {remedy}" in said(result)
    assert not (tmp_path / "new").exists()


def test_the_command_line_imports_neither_flower_nor_torch():
    code = "import sys, fedscgen.cli; print({'flwr', 'torch', 'cryptography'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert answer.stdout.strip() == "set()"
