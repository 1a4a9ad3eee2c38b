"""What stands between the sites and the SuperLink: a proxy that passes what SuperNodes ask, and nothing else.

On one port a SuperLink answers SuperNodes (``/v1/fleet``), which prove who they are by their keys, and whoever submits
runs or lets SuperNodes in (``/v1/control``), who needs no key at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FLEET = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)
"""What a SuperNode asks for; that it registers itself is not among it, as the operator lets it in."""

_NGINX = """\
# Passes what the sites' SuperNodes need to the SuperLink, which listens on this computer alone. Everything else is
# refused: who reaches the rest of the SuperLink can run a program at every site. To be put into /etc/nginx/conf.d.
upstream fedscgen_superlink {{
    server 127.0.0.1:{superlink_port};
    keepalive 16;
}}

server {{
    listen {port} ssl;
    ssl_certificate {folder}/superlink/server.pem;
    ssl_certificate_key {folder}/superlink/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    server_tokens off;
    client_max_body_size 64m;

    location ~ ^/v1/fleet/({fleet})$ {{
        limit_except POST {{
            deny all;
        }}
        # the path is put together anew, so that no other spelling of one reaches the SuperLink
        proxy_pass https://fedscgen_superlink/v1/fleet/$1;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {folder}/ca.crt;
        proxy_ssl_name localhost;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_read_timeout 300s;
    }}

    location / {{
        return 403;
    }}
}}
"""


def configure_proxy(folder: Path, *, port: int = 8000, superlink_port: int = 8001) -> str:
    """A configuration of nginx, for the context ``http``.

    Parameters
    ----------
    folder
        With ``ca.crt``, ``superlink/server.pem`` and ``superlink/server.key``.
    port
        Where the sites connect.
    superlink_port
        Where the SuperLink listens, on loopback.
    """
    return _NGINX.format(folder=folder.absolute(), port=port, superlink_port=superlink_port, fleet="|".join(FLEET))
