"""What sites and coordinator configure is read strictly: a typing error must not loosen a policy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fedscgen import _registry
from fedscgen._options import names_of, read_options, write_options
from fedscgen.deployment import CoordinatorConfig, SiteConfig
from fedscgen.federation import CorrectionOptions, FederationSettings, SiteOptions, SitePolicy

NEEDED = {"site": "north", "data": "/data/north.h5ad", "output": "/data/out"}
PAGE = Path(__file__).parents[2] / "docs/deployment.md"


def read_site(**given):
    return read_options(SiteConfig, {**NEEDED, **given}, "site.toml")


def read_coordinator(**given):
    return read_options(CoordinatorConfig, given, "the run configuration")


def test_a_site_needs_only_its_name_its_data_and_a_place_for_results():
    config = read_site()
    assert (config.site, config.data, config.output) == ("north", Path("/data/north.h5ad"), Path("/data/out"))
    assert config.policy == SitePolicy(aggregators=("masked",), reveal_counts=False, min_sites=None)
    assert (config.options, config.correction) == (SiteOptions(), CorrectionOptions())


@pytest.mark.parametrize("key", NEEDED)
def test_what_a_site_lacks_is_named(key):
    with pytest.raises(ValueError, match=f"lacks {key}"):
        read_options(SiteConfig, {name: value for name, value in NEEDED.items() if name != key}, "site.toml")
    with pytest.raises(ValueError, match=f"lacks {key}"):
        read_site(**{key: ""})


def test_hyphens_stand_for_underscores():
    config = read_site(**{"min-sites": 3, "reveal-counts": True, "labels-key": "type", "batch-key": ""})
    assert config.policy == SitePolicy(aggregators=("masked",), reveal_counts=True, min_sites=3)
    assert config.options == SiteOptions(labels_key="type")
    assert read_site(**{"labels-key": "", "min-holders": 1}).options == SiteOptions(labels_key=None, min_holders=1)


def test_ways_of_summing_have_commas_between_them():
    assert read_site(aggregators="masked, plain").policy.aggregators == ("masked", "plain")
    with pytest.raises(ValueError, match="name at least one"):
        read_site(aggregators="")


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match=r"unknown 'min-site' in site.toml: there are site, .*min-sites"):
        read_site(**{"min-site": 3})
    with pytest.raises(ValueError, match=r"unknown 'preset' in the run configuration: there are workflow, .*n-rounds"):
        read_coordinator(preset="paper")


@pytest.mark.parametrize(
    ("key", "value"), [("min_sites", "3"), ("reveal_counts", 1), ("data", 5), ("idle_timeout", True)]
)
def test_a_value_of_another_type_is_refused(key, value):
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        read_site(**{key: value})


@pytest.mark.parametrize("key", ["lr", "answer_timeout", "n_sites", "early_stopping_patience"])
def test_a_coordinator_s_value_of_another_type_is_refused(key):
    with pytest.raises(ValueError, match=f"the run configuration: {key}='3': expected"):
        read_coordinator(**{key: "3"})


def test_whole_numbers_are_seconds_too():
    assert read_site(idle_timeout=60).idle_timeout == 60.0


@pytest.mark.parametrize("name", ["join_timeout", "answer_timeout"])
def test_no_time_at_all_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}=0\.0: must be above 0"):
        read_coordinator(**{name: 0})
    with pytest.raises(ValueError, match=r"idle_timeout=0\.0: must be above 0"):
        read_site(idle_timeout=0)


def test_a_salt_is_read_from_its_file(tmp_path):
    (tmp_path / "salt").write_text("of all sites\n")
    assert read_site(label_salt_file=str(tmp_path / "salt")).read_label_salt() == "of all sites"
    assert read_site(label_salt_file="").read_label_salt() is None


def test_an_empty_salt_is_refused(tmp_path):
    (tmp_path / "salt").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        read_site(label_salt_file=str(tmp_path / "salt")).read_label_salt()


def test_crypten_needs_parties_that_talk_to_each_other():
    with pytest.raises(ValueError, match="unknown aggregator for sites that talk only to the coordinator 'crypten'"):
        read_coordinator(secure="crypten")


@pytest.mark.parametrize("min_sites", [0, 4])
def test_least_sites_lie_between_one_and_all(min_sites):
    with pytest.raises(ValueError, match=f"min_sites={min_sites}"):
        read_coordinator(n_sites=3, min_sites=min_sites)


def test_fewer_named_sites_than_are_waited_for_are_refused():
    message = r"n_sites=3, but sites=\('A', 'B', 'A'\) names 2, and no other may take part: .* set n_sites=2 or less"
    with pytest.raises(ValueError, match=message):
        CoordinatorConfig(sites=("A", "B", "A"), n_sites=3)
    assert CoordinatorConfig(sites=("A", "B", "C", "D"), n_sites=3).n_sites == 3


def test_a_site_can_not_have_the_coordinators_name():
    with pytest.raises(ValueError, match="site='server' is the coordinator's name in ledgers: give the site a name"):
        read_site(site="server")


def test_a_broken_plug_in_stops_only_who_needs_it(monkeypatch):
    def load():
        raise ImportError("broken")

    monkeypatch.setattr(_registry, "load_plugins", load)
    assert CoordinatorConfig(secure="masked").secure == "masked"
    assert read_site().policy.aggregators == ("masked",)
    with pytest.raises(ImportError, match="broken"):
        CoordinatorConfig(secure="of the plug-in")


def test_an_aggregator_that_nobody_knows_is_refused_with_those_that_serve():
    with pytest.raises(ValueError, match="coordinator 'squared': choose one of 'plain', 'masked'"):
        CoordinatorConfig(secure="squared")


def test_a_correction_needs_a_model():
    with pytest.raises(ValueError, match="needs trained_model"):
        read_coordinator(workflow="correction", trained_model="")


def test_a_deployment_goes_on_with_two_sites_and_with_one_seed_unless_it_is_told_otherwise():
    assert read_coordinator(n_rounds=3).settings == FederationSettings(n_rounds=3, seed=0)
    assert read_coordinator(seed="").settings.seed is None


def test_what_is_written_is_read_again():
    settings = FederationSettings(lr=0.01, early_stopping_patience=2, min_sites=2, model={"n_latent": 4})
    config = CoordinatorConfig(sites=("north", "west"), n_sites=2, output=Path("/out"), settings=settings)
    assert read_coordinator(**tomllib.loads(write_options(config))) == config


@pytest.mark.parametrize("cls", [SiteConfig, CoordinatorConfig])
def test_no_two_settings_have_one_name(cls):
    assert len(set(names_of(cls))) == len(names_of(cls))


def rows_of_the_page():
    """Keys and defaults of the table for a hospital."""
    table = re.search(r"^\| key \| default \| meaning \|\n\| .*\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    cells = [row.split("|")[1:3] for row in table.group(1).splitlines()]
    return {key.strip(" `"): default.strip(" `") for key, default in cells}


def test_the_page_lists_all_that_a_site_decides_with_its_default():
    rows = rows_of_the_page()
    assert list(rows) == [name.replace("_", "-") for name in names_of(SiteConfig)]
    defaults = tomllib.loads(write_options(read_site()))
    for key, default in rows.items():
        assert key in NEEDED or tomllib.loads(f"value = {default}")["value"] == defaults[key], key
