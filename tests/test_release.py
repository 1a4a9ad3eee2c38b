"""What a release takes: one version, one name, actions that can't be swapped, and text that agrees."""

import re
import tomllib

import pytest
import yaml

import fedscgen
from pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = PROJECT["project"]["name"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
PINNED = re.compile(r"^[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def used_actions(path):
    return re.findall(r"uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def own_extras(requirements):
    """Extras of this package itself that a list of requirements names, and others' names that look like it."""
    return [one for one in requirements if re.match(r"(open)?fedscgen\b", one)]


def test_the_version_stands_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/fedscgen/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", fedscgen.__version__)


def test_the_distribution_is_not_the_name_that_others_hold():
    assert NAME == "openfedscgen"
    assert PROJECT["project"]["scripts"] == {"fedscgen": "fedscgen.cli:app"}


@pytest.mark.parametrize("requirements", [*EXTRAS.values(), *PROJECT["dependency-groups"].values()])
def test_extras_and_groups_name_extras_of_this_package(requirements):
    for one in own_extras(requirements):
        name, extras = re.fullmatch(r"(\w+)\[([\w,-]+)\]", one).groups()
        assert name == NAME
        assert set(extras.split(",")) <= set(EXTRAS)


def test_there_are_groups_for_whoever_works_on_the_package():
    assert set(PROJECT["dependency-groups"]) == {"test", "doc", "dev"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_hash_with_their_version(path):
    actions = used_actions(path)
    assert actions
    assert [action for action in actions if not PINNED.match(action)] == []


def test_an_action_has_one_hash_in_all_workflows():
    named = {action for path in WORKFLOWS for action in used_actions(path)}
    assert len({action.split("@")[0] for action in named}) == len(named)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read_but_where_they_publish(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    allowed = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert allowed == ({"publish": {"id-token": "write"}} if path.stem == "publish" else {})


def test_what_is_to_be_cited_is_what_the_readme_says():
    citation = yaml.safe_load((ROOT / "docs/CITATION.cff").read_text(encoding="utf-8"))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert citation["license"] == PROJECT["project"]["license"]
    for article in (citation["preferred-citation"], *citation["references"]):
        assert article["title"] in readme
        assert all(author["family-names"] in readme for author in article["authors"])
        assert article["doi"].startswith("10.")


def test_the_recipe_asks_for_what_the_project_does():
    recipe = yaml.safe_load((ROOT / "docs/packaging/conda.yaml").read_text(encoding="utf-8"))
    theirs = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    wanted = []
    for one in PROJECT["project"]["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)(.*)", one).groups()
        wanted.append(f"{theirs.get(name, name)} {version}")
    assert sorted(recipe["requirements"]["run"][1:]) == sorted(wanted)
    assert recipe["package"]["name"] == NAME


def test_packages_under_the_gpl_are_named():
    page = (ROOT / "docs/release.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in ("harmonypy", "igraph"))
    copyleft = {extra for extra, needed in EXTRAS.items() if any(re.match("harmonypy|igraph", one) for one in needed)}
    assert copyleft == {"benchmark"}
