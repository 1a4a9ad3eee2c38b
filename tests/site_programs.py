"""Sites as they stand at an institution, without a network."""

import pytest

from cells import SMALL, make_adata
from fedscgen._options import read_options
from fedscgen.deployment import CoordinatorConfig, Site, SiteConfig

SITES = ["north", "south", "west"]
QUICK = {
    "n_rounds": 2, "n_epochs": 1, "min_sites": 2, "answer_timeout": 5.0, "join_timeout": 5.0,
    "model": {**SMALL, "linear_path": False},
}  # fmt: skip


@pytest.fixture
def cells():
    """A site's cells by name; they may be changed before the site is made."""
    adata = make_adata()
    return {name: adata[adata.obs["batch"] == f"site{i}"].copy() for i, name in enumerate(SITES)}


@pytest.fixture
def make_site(cells, tmp_path):
    """Makes a site that takes part in a run, with these entries of its configuration."""

    def make(name, run=1, **options):
        cells[name].write_h5ad(tmp_path / f"{name}.h5ad")
        given = {
            "allow_unknown_sites": True,
            "other_sites": True,
            "min_sites": 2,
            "site": name,
            "data": str(tmp_path / f"{name}.h5ad"),
            "output": str(tmp_path / name),
            **options,
        }
        config = read_options(SiteConfig, {"accelerator": "cpu", **given}, "a test")
        return Site(config, config.output / f"run-{run}")

    return make


@pytest.fixture
def configure(tmp_path):
    """Makes a coordinator's configuration of these entries, for runs that are soon over."""
    return lambda **options: read_options(
        CoordinatorConfig, {"output": str(tmp_path / "coordinator"), **QUICK, **options}, "a test"
    )


def round_asked_for(message):
    """The round of training for which a site is asked to train, if it is."""
    return message.meta["round"] if message.kind == "model weights" else None
