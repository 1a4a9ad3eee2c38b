"""The example of a new transport that the documentation gives."""

import re
from pathlib import Path

import anndata

from fedscgen.model import read_model
from site_programs import SITES

PAGE = Path(__file__).parents[2] / "docs/extending_transport.md"


def find_example():
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
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
