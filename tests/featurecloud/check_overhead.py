"""Seconds that a round of a masked federation takes over FeatureCloud and in the simulator. Minutes long, so by hand:

python -m pytest -s tests/featurecloud/check_overhead.py

The network is small, so that a round is its messages: what three more rounds add to a run, divided by three.
A round over Flower is measured in flower/check_many_sites.py.
"""

import sys
import time

import pytest
import yaml

from cells import make_adata
from fedscgen.federation import FederationSettings, simulate

SITES = ["site0", "site1", "site2"]
MODEL = {"n_hidden": 16, "n_latent": 4, "linear_path": False}
MORE_ROUNDS = 3


def settings_of(n_rounds):
    return {"n_rounds": n_rounds, "n_epochs": 1, "reference": "mean"}


@pytest.fixture(scope="module")
def sites():
    adata = make_adata(300)
    return {name: adata[adata.obs["batch"] == name].copy() for name in SITES}


def time_rounds(run):
    """Seconds of a round."""
    run(1)
    seconds = []
    for n_rounds in (1, 1 + MORE_ROUNDS):
        began = time.monotonic()
        run(n_rounds)
        seconds.append(time.monotonic() - began)
    return (seconds[1] - seconds[0]) / MORE_ROUNDS


@pytest.fixture(scope="module")
def simulated(sites):
    def run(n_rounds):
        settings = FederationSettings(**settings_of(n_rounds), model=MODEL)
        simulate(sites, settings=settings, secure="masked", show_progress=False, accelerator="cpu")

    return time_rounds(run)


@pytest.mark.parametrize("interval", [0.02, 2.0])
def test_rounds_over_featurecloud(sites, make_clients, simulated, interval):
    def run(n_rounds):
        clients = make_clients(*SITES)
        for name, adata in sites.items():
            adata.write_h5ad(clients.given(name) / "raw.h5ad")
            content = {
                "data": {"adata": "raw.h5ad"},
                "n_rounds": n_rounds,
                "model": {"hidden_layer_sizes": "16", "z_dimension": 4},
                "train": {"n_epochs": 1},
                "federation": {"reference": "mean", "model": {"linear_path": False}},
                "site": {"accelerator": "cpu"},
            }
            clients.given(name).joinpath("config.yml").write_text(yaml.safe_dump({"fedscgen": content}))
        controller = clients.start()
        controller._interval = interval
        controller.run(timeout=300)
        assert all(controller.said[name]["finished"] for name in SITES), clients.log(SITES[0])

    seconds = time_rounds(run)
    sys.stdout.write(
        f"\nFeatureCloud, polled every {interval:g} s: {seconds:.2f} s a round; simulator: {simulated:.2f} s\n"
    )
    assert seconds < simulated + 4 * 2 * len(SITES) * (interval + 0.3)  # four questions, each there and back
