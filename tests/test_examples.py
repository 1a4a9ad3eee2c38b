"""The code of the guides and the examples of docstrings run as they stand; numbers alone are made small."""

import doctest
from importlib import import_module

import numpy as np
import pytest
from scipy import sparse

from cells import make_adata
from fedscgen import federation, model
from fedscgen._spelling import simplify
from fedscgen.model import FedSCGEN
from pages import read_blocks

# scanpy, umap and pandas warn as they like; ours are tested elsewhere
pytestmark = pytest.mark.filterwarnings("ignore")
SMALLER = {
    "n_top_genes=2000": "n_top_genes=20",
    "model.train()": "model.train(2)",
    "n_rounds=3": "n_rounds=1, n_epochs=1",
}
# how long a run trains is left out, too, but where the page says it
ENDS = (
    'site_key="batch")',
    'labels_key="celltype"))\n',
    'secure="masked")',
    'secure="plain")',
    "max_abs=2.0**28))",
    "simulate(adata)",
)


def run_block(code, names):
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    for end in ENDS if "settings=" not in code else ():
        whole = end.rstrip()
        code = code.replace(whole, f'{whole[:-1]}, settings="components")')
    exec(code, names)  # noqa: S102  (our own page)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guide_to_notebooks_runs(in_folder, quiet_figures):
    blocks = read_blocks("docs/guide/notebook.md", "python")
    adata = make_adata()
    adata.X = sparse.csr_matrix(np.floor(5 * adata.X.toarray()))
    names = {"adata": adata}
    for code in blocks[:2]:
        run_block(code, names)
    assert "X_fedscgen" in names["corrected"].obsm
    assert names["adata"].n_vars <= 20
    first, second = FedSCGEN(names["adata"]), FedSCGEN(names["adata"])
    together = {"FedSCGEN": FedSCGEN, "model": first, "other_model": second, "other": second.train_local(1)}
    run_block(blocks[2], together)
    assert together["update"].n_cells
    names["result"] = federation.simulate(names["adata"], settings="components", show_progress=False)
    figures = [code for code in blocks if "pl.training" in code]
    assert len(figures) == 1
    for code in blocks[3:]:
        if code in figures:  # without training there is no curve
            code = code.replace("pl.training", "len")
        names["query"] = make_adata(seed=1)
        names["query"].obs["plate"] = "first"
        run_block(code, names)
    assert names["corrected"].n_obs == names["query"].n_obs


def test_the_guide_to_simulations_runs(in_folder):
    pytest.importorskip("cryptography", reason='needs the extra "masked"')
    adata = make_adata()
    adata.obs["celltype"] = adata.obs["cell_type"]
    sites = {site: adata[adata.obs["batch"] == site].copy() for site in adata.obs["batch"].cat.categories}
    names = {"adata": adata, **dict(zip(("first", "second", "third"), sites.values(), strict=True))}
    for code in read_blocks("docs/guide/simulate.md", "python"):
        run_block(code.replace('secure="crypten"', 'secure="plain"'), names)  # which has tests of its own
    assert names["again"].settings.n_rounds == 1
    assert (names["result"].ledger["protection"] == "masked").any()


def test_the_guides_to_newcomers_and_correction_run(in_folder):
    adata = make_adata()
    settings = federation.FederationSettings(n_rounds=0, reference="dominant")
    names = {"result": federation.simulate(adata, settings=settings, show_progress=False)}
    names["adata"] = make_adata(seed=1)
    for code in read_blocks("docs/guide/new_sites.md", "python"):
        run_block(code, names)
    assert names["corrected"].n_obs == names["adata"].n_obs
    names |= {"FedSCGEN": FedSCGEN, "adata": adata}
    adata.write_h5ad("cells.h5ad")
    for code in read_blocks("docs/guide/correction.md", "python"):
        run_block(code, names)
    assert names["shifts"].shifts.shape[0] == 3


@pytest.mark.parametrize("example", [federation.simulate, model.FedSCGEN, simplify], ids=lambda one: one.__name__)
def test_the_examples_of_a_docstring_run(example):
    pytest.importorskip("cryptography", reason='needs the extra "masked"')
    names = {**vars(import_module(example.__module__)), **vars(federation), "adata": make_adata()}
    (found,) = doctest.DocTestFinder(recurse=False).find(example, globs=names)
    assert found.examples
    for one in found.examples:
        if one.want:
            assert repr(eval(one.source, names)) == one.want.strip()  # noqa: S307  (our own text)
        else:
            run_block(one.source, names)
