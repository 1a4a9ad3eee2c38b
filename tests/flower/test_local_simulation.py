"""How a node of Flower's local simulation gets its cells."""

import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata
import pytest

from fedscgen._local_socket import ask
from fedscgen._options import read_options
from fedscgen.deployment import SiteConfig
from fedscgen.flower._local_simulation import is_simulated, make_simulated_site

SOCKET = Path("/tmp/simulated.sock")  # noqa: S108  (never made)


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
        given = make_simulated_site(config, node(i), 7, SOCKET)
        site = read_options(SiteConfig, given, "a simulation")
        assert site.site == f"site{i}"
        assert site.output == tmp_path / "out" / "sites" / site.site
        for aggregator in ("masked", "plain"):
            agreeable = make_simulated_site({**config, "secure": aggregator}, node(i), 7, SOCKET)
            policy = read_options(SiteConfig, agreeable, "a simulation").policy
            policy.check(aggregator, reveals_counts=True, n_sites=2)
        cells = anndata.read_h5ad(site.data)
        assert list(cells.obs_names) == list(adata.obs_names[adata.obs["batch"] == site.site])
        assert make_simulated_site(config, node(i), 7, SOCKET) == given, "another message to the same node"


def test_data_are_needed_and_must_fit_the_nodes(config, adata, tmp_path):
    with pytest.raises(ValueError, match="holds 3 sites and 2 nodes are simulated: set num-supernodes=3 and n-sites=3"):
        make_simulated_site(config, node(0, 2), 7, SOCKET)
    with pytest.raises(ValueError, match="needs simulated-data="):
        make_simulated_site({**config, "simulated-data": ""}, node(0), 7, SOCKET)
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad does not exist"):
        make_simulated_site({**config, "simulated-data": str(tmp_path / "none.h5ad")}, node(0), 7, SOCKET)
    del adata.obs["batch"]
    adata.write_h5ad(tmp_path / "all.h5ad")
    with pytest.raises(KeyError, match="has no obs"):
        make_simulated_site(config, node(0), 7, SOCKET)


def test_the_service_of_a_simulated_site_is_started_once_and_ends_with_what_started_it(config, tmp_path, monkeypatch):
    """It ends with the parent of the process that asks, which is this test's process here."""
    monkeypatch.setattr("tempfile.tempdir", tempfile.mkdtemp(prefix="simulated"))
    code = f"""if True:
        import tempfile, time
        from fedscgen.flower._local_simulation import find_simulated_socket
        from fedscgen._local_socket import ask
        tempfile.tempdir = {tempfile.gettempdir()!r}
        for _ in range(2):
            began = time.monotonic()
            path = find_simulated_socket({config!r}, {node(0)!r}, 7)
            assert ask(path, 7, b"no message", timeout=20)
        assert time.monotonic() - began < 1
        print(path)
        """
    between = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    answer = subprocess.run([sys.executable, "-c", between], capture_output=True, text=True)  # noqa: S603
    assert answer.returncode == 0, answer.stderr
    socket = Path(answer.stdout.strip())
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            ask(socket, 7, b"no message", timeout=5)
        except OSError:
            break
        time.sleep(0.2)
    else:
        pytest.fail("the service goes on")
    shutil.rmtree(tempfile.gettempdir())
