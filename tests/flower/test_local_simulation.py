"""How a node of Flower's local simulation gets its cells."""

import anndata
import pytest

from fedscgen.flower._config import RunConfig
from fedscgen.flower._local_simulation import is_simulated, simulated_site


def node(partition, n_partitions=3):
    return {"partition-id": partition, "num-partitions": n_partitions}


@pytest.fixture
def config(adata, tmp_path):
    adata.write_h5ad(tmp_path / "all.h5ad")
    return RunConfig(simulated_data=str(tmp_path / "all.h5ad"), output=str(tmp_path / "out"))


def test_only_a_node_without_a_configuration_of_its_own_is_simulated():
    assert is_simulated(node(0))
    assert not is_simulated({**node(0), "data": "/data/site.h5ad"})
    assert not is_simulated({"site": "north", "data": "/data/site.h5ad", "output": "/data"})


def test_the_nodes_share_the_cells_by_site(config, adata, tmp_path):
    for i in range(3):
        site = simulated_site(config, node(i), run_id=7)
        assert site.site == f"site{i}"
        assert site.output == str(tmp_path / "out" / "sites" / site.site)
        cells = anndata.read_h5ad(site.data)
        assert list(cells.obs_names) == list(adata.obs_names[adata.obs["batch"] == site.site])
        assert simulated_site(config, node(i), run_id=7) == site, "another message to the same node"


def test_data_are_needed_and_must_fit_the_nodes(config, adata, tmp_path):
    with pytest.raises(ValueError, match="holds 3 sites and 2 nodes are simulated: set num-supernodes=3 and n-sites=3"):
        simulated_site(config, node(0, 2), run_id=7)
    with pytest.raises(ValueError, match="needs simulated-data="):
        simulated_site(RunConfig(), node(0), run_id=7)
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad does not exist"):
        simulated_site(RunConfig(simulated_data=str(tmp_path / "none.h5ad")), node(0), run_id=7)
    del adata.obs["batch"]
    adata.write_h5ad(tmp_path / "all.h5ad")
    with pytest.raises(KeyError, match="has no obs"):
        simulated_site(config, node(0), run_id=7)
