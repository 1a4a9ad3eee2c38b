"""What sites and coordinator configure is read strictly: a typing error must not loosen a policy."""

from __future__ import annotations

import pytest

from fedscgen.flower._config import RunConfig, SiteConfig, salt_of

NEEDED = {"site": "north", "data": "/data/north.h5ad", "output": "/data/out"}


def test_a_site_needs_only_its_name_its_data_and_a_place_for_results():
    config = SiteConfig.of(NEEDED)
    assert (config.aggregators, config.reveal_counts, config.min_sites) == ("masked", False, 2)


@pytest.mark.parametrize("key", NEEDED)
def test_what_a_site_lacks_is_named(key):
    with pytest.raises(ValueError, match=f"lacks {key}"):
        SiteConfig.of({name: value for name, value in NEEDED.items() if name != key})


def test_hyphens_stand_for_underscores():
    assert SiteConfig.of({**NEEDED, "min-sites": 3, "reveal-counts": True}).min_sites == 3


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match=r"unknown 'min-site' in --node-config: there are site, .*min-sites"):
        SiteConfig.of({**NEEDED, "min-site": 3})


@pytest.mark.parametrize(
    ("key", "value"), [("min-sites", "3"), ("reveal-counts", 1), ("data", 5), ("idle-timeout", True)]
)
def test_a_value_of_another_type_is_refused(key, value):
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        SiteConfig.of({**NEEDED, key: value})


def test_whole_numbers_are_seconds_too():
    assert SiteConfig.of({**NEEDED, "idle-timeout": 60}).idle_timeout == 60.0


def test_a_salt_is_read_from_its_file(tmp_path):
    (tmp_path / "salt").write_text("of all sites\n")
    config = SiteConfig.of({**NEEDED, "label-salt-file": str(tmp_path / "salt")})
    assert salt_of(config) == "of all sites"
    assert salt_of(SiteConfig.of(NEEDED)) is None


def test_an_empty_salt_is_refused(tmp_path):
    (tmp_path / "salt").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        salt_of(SiteConfig.of({**NEEDED, "label-salt-file": str(tmp_path / "salt")}))


def test_crypten_needs_parties_that_talk_to_each_other():
    with pytest.raises(ValueError, match="unknown aggregator over Flower 'crypten'"):
        RunConfig.of({"secure": "crypten"})


@pytest.mark.parametrize("min_sites", [0, 4])
def test_least_sites_lie_between_one_and_all(min_sites):
    with pytest.raises(ValueError, match=f"min-sites={min_sites}"):
        RunConfig.of({"n-sites": 3, "min-sites": min_sites})


def test_a_correction_needs_a_model():
    with pytest.raises(ValueError, match="needs model="):
        RunConfig.of({"workflow": "correction"})
