"""Sites as they stand at an institution, without a network."""

import pytest

from cells import make_adata
from fedscgen.flower._config import SiteConfig
from fedscgen.flower._site import Site

SITES = ["north", "south", "west"]


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
        folder = tmp_path / name / f"run-{run}"
        folder.mkdir(parents=True)
        config = SiteConfig(name, str(tmp_path / f"{name}.h5ad"), str(tmp_path / name), accelerator="cpu", **options)
        return Site(config, folder)

    return make
