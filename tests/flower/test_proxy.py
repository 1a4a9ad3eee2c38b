"""The proxy's configuration, without nginx: it names what Flower's SuperNode asks for and nothing else."""

from __future__ import annotations

import re

import pytest

from fedscgen.flower._proxy import FLEET, configure_proxy

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


def test_it_passes_what_a_supernode_asks_for_but_to_let_itself_in():
    from flwr.superlink.routers.fleet.router import router

    asked = {route.path.removeprefix("/v1/fleet/") for route in router.routes}
    assert set(FLEET) == asked - {"register-node", "unregister-node"}


def test_nothing_but_these_paths_is_passed_and_only_over_tls(tmp_path):
    text = configure_proxy(tmp_path, port=9000, superlink_port=9001)
    places = re.findall(r"location (.*) \{", text)
    assert places == [f"~ ^/v1/fleet/({'|'.join(FLEET)})$", "/"]
    assert text.count("proxy_pass") == 1
    assert re.search(r"location / \{\s*return 403;", text)
    assert "server 127.0.0.1:9001;" in text
    assert "listen 9000 ssl;" in text
    assert "proxy_ssl_verify on;" in text
    assert f"{tmp_path}/superlink/server.key;" in text


def test_a_message_s_largest_piece_passes(tmp_path):
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

    megabytes = int(re.search(r"client_max_body_size (\d+)m;", configure_proxy(tmp_path)).group(1))
    assert megabytes * 2**20 > 2 * FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
