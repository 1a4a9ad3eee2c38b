"""A record like Zenodo's on this machine, whose answers can be made to fail."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

import h5py
import numpy as np
import pytest

from fedscgen.datasets import _transfer
from measured_cells import demo  # noqa: F401  (a fixture)


@pytest.fixture
def record(monkeypatch) -> Iterator[Record]:
    """A record with one HDF5 file of a few kB, and no pauses between attempts."""
    monkeypatch.setattr(_transfer, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(_transfer, "_PIECE_BYTES", 100)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    record = Record(files={"PBMC.h5ad": _hdf5(seed=0)})
    server = _make_server(record)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield record
    server.shutdown()
    thread.join()
    server.server_close()


def _hdf5(seed: int) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["noise"] = np.random.default_rng(seed).integers(256, size=8000, dtype=np.uint8)
    return content.getvalue()


@dataclass
class Record:
    """What is served, and how it fails. ``asked`` collects the headers of all requests for a file."""

    files: dict[str, bytes]
    listed: bool = True
    ranges: bool = True
    etag: str | None = '"v1"'
    checksum: str | None = None  # stated in place of the right one
    states_length: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    statuses: list[int] = field(default_factory=list)  # what the next requests for a file are answered instead
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def listing(self) -> bytes:
        files = [
            {"key": name, "size": len(data), "checksum": self.checksum or f"md5:{hashlib.md5(data).hexdigest()}"}  # noqa: S324
            for name, data in self.files.items()
        ]
        return json.dumps({"files": files}).encode()


def _make_server(record: Record) -> ThreadingHTTPServer:
    """Serve the record on a free port of the loopback; ``record.url`` is where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = PurePosixPath(self.path)
            if path == PurePosixPath("/api/records/11489844") and record.listed:
                self._send(200, record.listing(), {})
            elif path.parent == PurePosixPath("/records/11489844/files") and path.name in record.files:
                self._send_file(record.files[path.name])
            else:
                self._send(404, b"nothing here", {})

        def _send_file(self, data: bytes) -> None:
            record.asked.append({name.lower(): value for name, value in self.headers.items()})
            if record.statuses:
                self._send(record.statuses.pop(0), b"not now", {})
                return
            wanted = self.headers.get("Range")
            headers = {"ETag": record.etag} if record.etag else {}
            if wanted is None or not record.ranges or self.headers.get("If-Range", record.etag) != record.etag:
                self._send(200, data, headers, cut=True)
                return
            offset = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if offset >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
            self._send(206, data[offset:], headers, cut=True)

        def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if record.states_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: record.cuts.pop(0)] if cut and record.cuts else body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record.url = f"http://127.0.0.1:{server.server_port}"
    return server
