import logging

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from fedscgen.datasets import demo_data, load_dataset, load_file, simulate_sites


@pytest.fixture(scope="module")
def raw():
    adata = simulate_sites(n_sites=2, n_types=3, n_cells=200, n_genes=500)
    adata.X = adata.layers.pop("counts")
    return adata


@pytest.fixture
def save(tmp_path):
    def write(adata, name="data.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return write


def test_a_published_data_set_is_scaled_as_published(raw, save):
    path = save(raw, "PBMC.h5ad")
    adata = load_dataset("PBMC", data_dir=path.parent)
    assert adata.X.min() < 0
    assert adata.X.max() <= 10
    assert adata.obs["batch"].cat.categories.tolist() == ["site_1", "site_2"]
    assert adata.obs["cell_type"].cat.categories.tolist() == ["type_1", "type_2", "type_3"]
    unscaled = load_dataset("PBMC", data_dir=path.parent, scale=False)
    assert sparse.issparse(unscaled.X)
    assert unscaled.var_names.tolist() == adata.var_names.tolist()


def test_a_data_set_is_fetched_where_it_is_not_there_yet(raw, save, record, tmp_path):
    record.files["CellLine.h5ad"] = save(raw).read_bytes()
    options = {"cache_dir": tmp_path / "cache", "base_url": record.url, "show_progress": False}
    first, second = load_dataset("CellLine", **options), load_dataset("CellLine", **options)
    np.testing.assert_array_equal(first.X, second.X)
    assert len(record.asked) == 1


def test_the_demo_is_known_by_name():
    assert (load_dataset("demo").X != demo_data(seed=0).X).nnz == 0


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(
        ValueError, match=r"unknown data set 'pancreas': choose one of HumanDendriticCells, .*'demo'.*load_file"
    ):
        load_dataset("pancreas")


def test_your_columns_become_batch_and_cell_type(adata, save):
    adata.obs = adata.obs.rename(columns={"batch": "hospital", "cell_type": "batch"})
    adata.obs["cell_type"] = "not these"
    loaded = load_file(save(adata), batch_key="hospital", labels_key="batch")
    assert loaded.obs["batch"].tolist() == adata.obs["hospital"].tolist()
    assert loaded.obs["cell_type"].tolist() == adata.obs["batch"].tolist()
    assert loaded.obs["hospital"].tolist() == adata.obs["hospital"].tolist()
    assert (loaded.X != adata.X).nnz == 0


def test_numbers_as_names_become_strings_in_their_order(adata, save):
    adata.obs["run"] = np.arange(adata.n_obs) % 11
    assert load_file(save(adata), batch_key="run").obs["batch"].cat.categories.tolist() == list(map(str, range(11)))


def test_your_raw_counts_are_prepared_without_scaling(raw, save, caplog):
    with caplog.at_level(logging.INFO):
        loaded = load_file(save(raw))
    assert sparse.issparse(loaded.X)
    assert loaded.X.min() == 0
    assert loaded.X.max() < 10
    assert np.issubdtype(loaded.layers["counts"].dtype, np.integer)
    assert f"prepared 200 cells x {loaded.n_vars} genes of 200 x 500" in caplog.text
    assert load_file(save(raw), scale=True).X.min() < 0


def test_names_are_made_unique(adata, save):
    adata.obs_names = ["cell0", "cell0", "cell0-1", *adata.obs_names[3:]]
    adata.var_names = ["gene0", "gene0", *adata.var_names[2:]]
    loaded = load_file(save(adata))
    assert loaded.obs_names.is_unique
    assert loaded.var_names.is_unique
    assert loaded.obs_names[0] == "cell0"


def test_columns_are_sliced_by_cell(adata, save):
    adata.X = adata.X.tocsc()
    loaded = load_file(save(adata))
    assert loaded.X.format == "csr"
    assert (loaded.X != adata.X).nnz == 0


def test_sites_that_lose_all_cells_are_gone(raw, save):
    poor = raw.copy()
    at_first = (poor.obs["batch"] == "site_1").to_numpy()
    poor.X = sparse.csr_matrix(poor.X.toarray() * np.where(at_first, 0, 1)[:, None])
    assert load_file(save(poor)).obs["batch"].cat.categories.tolist() == ["site_2"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad does not exist"):
        load_file(tmp_path / "none.h5ad")


def test_a_file_that_is_no_h5ad(tmp_path):
    (tmp_path / "text.h5ad").write_text("cell,gene")
    with pytest.raises(ValueError, match=r"text\.h5ad can't be read as \.h5ad: .*signature"):
        load_file(tmp_path / "text.h5ad")
    h5py.File(tmp_path / "empty.h5ad", "w").close()
    with pytest.raises(ValueError, match=r"empty\.h5ad"):
        load_file(tmp_path / "empty.h5ad", batch_key="x")


def test_a_file_without_x(save):
    with pytest.raises(ValueError, match=r"data\.h5ad has no X"):
        load_file(save(anndata.AnnData(obs=pd.DataFrame({"batch": ["a"], "cell_type": ["b"]}, index=["cell"]))))


@pytest.mark.parametrize("options", [{"batch_key": "site"}, {"labels_key": "site"}])
def test_a_missing_column_names_those_there_are(adata, save, options):
    with pytest.raises(KeyError, match=r"data\.h5ad: obs\['site'\] not found; there are 'batch', 'cell_type', 'age'"):
        load_file(save(adata), **options)


def test_a_published_file_without_its_columns(adata, save):
    del adata.obs["batch"]
    path = save(adata, "PBMC.h5ad")
    with pytest.raises(KeyError, match=r"PBMC\.h5ad: obs\['batch'\] not found"):
        load_dataset("PBMC", data_dir=path.parent)


def test_missing_labels_are_counted_and_the_first_is_named(adata, save):
    adata.obs.loc[["cell3", "cell5"], "cell_type"] = np.nan
    with pytest.raises(ValueError, match=r"data\.h5ad: obs\['cell_type'\] is missing for 2 cells .*'cell3'"):
        load_file(save(adata))


def test_counts_that_can_not_be_prepared_name_the_file(raw, save):
    with pytest.raises(ValueError, match=r"data\.h5ad: none of 200 cells has 501 of 500 genes"):
        load_file(save(raw), min_genes=501)
