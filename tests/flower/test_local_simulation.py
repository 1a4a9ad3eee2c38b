"""How a node of Flower's local simulation gets its cells."""

import anndata
import pytest

from fedscgen._options import read_options
from fedscgen.deployment import SiteConfig
from fedscgen.flower._local_simulation import is_simulated, make_simulated_site


def node(partition, n_partitions=3):
    return {"partition-id": partition, "num-partitions": n_partitions}


@pytest.fixture
def config(adata, tmp_path):
    adata.write_h5ad(tmp_path / "all.h5ad")
    return {"simulated-data": str(tmp_path / "all.h5ad"), "output": str(tmp_path / "out"), "secure": "masked"}


def test_only_a_node_without_a_configuration_of_its_own_is_simulated():
    assert is_simulated(node(0))
    assert not is_simulated({**node(0), "data": "/data/site.h5ad"})
    assert not is_simulated({"site": "north", "data": "/data/site.h5ad", "output": "/data"})


def test_the_nodes_share_the_cells_by_site(config, adata, tmp_path):
    for i in range(3):
        given = make_simulated_site(config, node(i), run_id=7)
        site = read_options(SiteConfig, given, "a simulation")
        assert site.site == f"site{i}"
        assert site.output == tmp_path / "out" / "sites" / site.site
        for aggregator in ("masked", "plain"):
            agreeable = make_simulated_site({**config, "secure": aggregator}, node(i), run_id=7)
            policy = read_options(SiteConfig, agreeable, "a simulation").policy
            policy.check(aggregator, reveals_counts=True, n_sites=2)
        cells = anndata.read_h5ad(site.data)
        assert list(cells.obs_names) == list(adata.obs_names[adata.obs["batch"] == site.site])
        assert make_simulated_site(config, node(i), run_id=7) == given, "another message to the same node"


def test_data_are_needed_and_must_fit_the_nodes(config, adata, tmp_path):
    with pytest.raises(ValueError, match="holds 3 sites and 2 nodes are simulated: set num-supernodes=3 and n-sites=3"):
        make_simulated_site(config, node(0, 2), run_id=7)
    with pytest.raises(ValueError, match="needs simulated-data="):
        make_simulated_site({**config, "simulated-data": ""}, node(0), run_id=7)
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad does not exist"):
        make_simulated_site({**config, "simulated-data": str(tmp_path / "none.h5ad")}, node(0), run_id=7)
    del adata.obs["batch"]
    adata.write_h5ad(tmp_path / "all.h5ad")
    with pytest.raises(KeyError, match="has no obs"):
        make_simulated_site(config, node(0), run_id=7)
