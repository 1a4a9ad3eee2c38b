"""What an app's image is built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen._files import create_whole

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = "FeatureCloud==0.1.0"
"""The engine, as pip is told of it, together with ``--no-deps``."""

# hadolint's DL3008: Debian's archive drops a version when the next one comes, so that a pinned one can't be had again
_DOCKERFILE = """\
FROM python:3.12-slim

# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install -y --no-install-recommends nginx supervisor \\
 && rm -rf /var/lib/apt/lists/*

# torch of a version that fits; --index-url https://download.pytorch.org/whl/cpu takes one without CUDA
RUN pip install --no-cache-dir torch==2.13.0

# the package as it was built from its repository, since what an index has under its name is other people's code
COPY wheels/ /wheels/
# hadolint ignore=DL3013
RUN wheel="$(ls /wheels/*.whl)" \\
 && pip install --no-cache-dir "${{wheel}}[featurecloud]" \\
 && pip install --no-cache-dir --no-deps {engine}

COPY nginx.conf /etc/nginx/nginx.conf
COPY supervisord.conf /supervisord.conf
COPY main.py /app/main.py

EXPOSE 9000 9001
ENTRYPOINT ["/usr/bin/supervisord", "-c", "/supervisord.conf"]
"""

_NGINX = """\
# FeatureCloud's controller asks on port 9000, and its web page on 9001; the app's program listens on loopback alone.
worker_processes 1;
pid /run/nginx.pid;
events {}

http {
    access_log off;
    client_max_body_size 0;
    proxy_read_timeout 300s;

    server {
        listen 9000;
        location / {
            proxy_pass http://127.0.0.1:5000/api/;
        }
    }

    server {
        listen 9001;
        location / {
            proxy_pass http://127.0.0.1:5000/web/;
        }
    }
}
"""

# the program isn't started again: its run would be over, and the controller sets a client up once
_SUPERVISOR = """\
[supervisord]
nodaemon=true
user=root

[program:nginx]
command=nginx -g "daemon off;"
autorestart=true
stdout_logfile=/dev/stdout
stdout_logfile_maxbytes=0
redirect_stderr=true

[program:app]
command=python3 -u /app/main.py
autorestart=false
stdout_logfile=/dev/stdout
stdout_logfile_maxbytes=0
redirect_stderr=true
"""

_MAIN = """\
\"\"\"The app: all of it is in the package.\"\"\"

from fedscgen.featurecloud.app import main

if __name__ == "__main__":
    main()
"""

_CONFIG = """\
# What every client has in its folder, beside its cells. The docs of fedscgen say what else can stand here.
fedscgen:
  workflow: train # or correction, with init_model: trained_model
  data:
    adata: raw.h5ad
    batch_key: batch
    cell_key: cell_type
  n_rounds: 8
  model:
    init_model: None
  train:
    n_epochs: 4
  federation:
    settings: default # or paper, or components
  site:
    min_cells: 5
"""

_README = """\
# An app of FeatureCloud

1. Put the package's wheel beside the Dockerfile, from a clone of its repository:

       pip wheel --no-deps --wheel-dir wheels /path/of/the/clone

2. Build and publish the image, under the name that the app has in FeatureCloud's store:

       featurecloud app build . NAME latest
       featurecloud app publish NAME

   FeatureCloud's command has an environment of its own: it holds back click and urllib3, on which others depend.

3. Every client gets `config.yml` and its cells.
"""

_FILES = {
    "Dockerfile": _DOCKERFILE.format(engine=ENGINE),
    "nginx.conf": _NGINX,
    "supervisord.conf": _SUPERVISOR,
    "main.py": _MAIN,
    "config.yml": _CONFIG,
    "README.md": _README,
    ".dockerignore": "*\n!wheels/*.whl\n!main.py\n!nginx.conf\n!supervisord.conf\n",
}


def write_image(folder: Path) -> None:
    """Write what an image is built from, and an example of a client's configuration.

    Parameters
    ----------
    folder
        Folder to make.

    Raises
    ------
    FileExistsError
        There is such a folder.
    """
    with create_whole(folder, overwrite=False, remedy="choose another place, or edit the files in it") as target:
        target.mkdir()
        for name, content in _FILES.items():
            target.joinpath(name).write_text(content, encoding="utf-8")
