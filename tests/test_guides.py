"""The code of three guides runs as it stands, but for the length of a training."""

import numpy as np
import pytest
import scvi
from anndata import read_h5ad
from typer.testing import CliRunner

from cells import make_adata
from fedscgen.cli import app
from fedscgen.federation import simulate
from fedscgen.model import FedSCGEN
from pages import read_blocks

# scanpy, umap and pandas warn as they like; ours are tested elsewhere
pytestmark = pytest.mark.filterwarnings("ignore")

SHORTER = {
    "model.train()": "model.train(2)",
    'simulate(adata, site_key="batch")': 'simulate(adata, site_key="batch", settings="components")',
    "site=SiteOptions(labels_key=": 'settings="components", site=SiteOptions(labels_key=',
    "settings=FederationSettings(n_rounds=3,": "settings=FederationSettings(n_rounds=1, n_epochs=1,",
    "simulate(adata, secure=": 'simulate(adata, settings="components", secure=',
    '\n    settings="components", site=': "\n    site=",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the Python code of a page, block after block, in a fresh folder, and returns its names."""
    monkeypatch.chdir(tmp_path)

    def run(page, without=(), **names):
        for block in read_blocks(f"docs/guide/{page}.md", "python"):
            kept = [line for line in block.splitlines() if not any(part in line for part in without)]
            code = "\n".join(kept)
            for long, short in SHORTER.items():
                code = code.replace(long, short)
            exec(code, names)  # noqa: S102  (our own page)
        return names

    yield run
    scvi.settings.seed = None


def test_simulations(run):
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    adata = make_adata()
    adata.obs["celltype"] = adata.obs["cell_type"]
    parts = {
        name: adata[adata.obs["batch"] == f"site{i}"].copy() for i, name in enumerate(("first", "second", "third"))
    }
    names = run("simulate", without=["crypten"], adata=adata, **parts)  # another extra, tested elsewhere
    np.testing.assert_array_equal(names["result"].corrected.obs_names, adata.obs_names)
    assert not names["sent"].empty


def test_corrections(run):
    adata = make_adata()
    adata.obs["cell_type"] = [kind if i % 3 else "?" for i, kind in enumerate(adata.obs["cell_type"])]
    names = run("correction", adata=adata, FedSCGEN=FedSCGEN)
    assert np.isfinite(names["corrected"].obsm["X_fedscgen"]).all()


def test_sites_that_come_later(run):
    result = simulate(make_adata(), settings="components", show_progress=False)
    new = make_adata(n_batches=1, seed=1)
    names = run("new_sites", without=["include_batches"], result=result, adata=new)
    assert names["corrected"].n_obs == new.n_obs
    new.write_h5ad("new.h5ad")
    labelled, unlabelled, _ = read_blocks("docs/guide/new_sites.md", "bash")[0].strip().splitlines()
    for line in (labelled, f"{unlabelled.partition('#')[0]} --overwrite"):
        done = CliRunner().invoke(app, line.split()[1:])
        assert done.exit_code == 0, done.output
        assert read_h5ad("corrected.h5ad").n_obs == new.n_obs
