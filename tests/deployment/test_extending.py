"""The example of a new transport that the documentation gives."""

import anndata

from fedscgen.model import read_model
from pages import read_blocks
from site_programs import SITES


def find_example():
    (example,) = read_blocks("docs/extending.md", "python", "A new transport")
    return example


def test_the_example_of_a_new_transport_runs(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, adata in cells.items():
        adata.write_h5ad(f"{name}.h5ad")
    exec(find_example(), {})  # noqa: S102  (our own page)
    assert read_model("result/model").references is not None
    for name in SITES:
        assert "X_fedscgen" in anndata.read_h5ad(f"{name}/run-1/corrected.h5ad").obsm


def test_the_example_is_short():
    assert len(find_example().splitlines()) <= 40
