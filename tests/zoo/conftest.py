"""A web server on this machine that can misbehave, an empty cache, and golden weights."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fbnetv3.zoo import WeightRecord

GOLDEN = Path(__file__).parent.parent / "golden"


@dataclass
class Site:
    """What the server gives out and what it was asked for."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    sent: int | None = None  # bytes after which the connection is cut
    delay: float = 0.0  # seconds before the answer
    requests: list[str] = field(default_factory=list)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            time.sleep(site.delay)
            try:
                self.send_response(site.status)
                self.send_header("Content-Length", str(len(site.body)))
                self.end_headers()
                self.wfile.write(site.body[: site.sent])
            except OSError:
                pass  # the client gave up, as it should
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on 127.0.0.1 that gives out ``site.body``."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/files/model.safetensors"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of each test: a folder of its own that does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FBNETV3_CACHE", str(folder))
    return folder


@pytest.fixture
def weights() -> bytes:
    """A small safetensors file."""
    return save({"head.fc.weight": torch.arange(6.0).reshape(2, 3)}, {"format": "fbnetv3"})


@pytest.fixture
def make_record(site: Site) -> Callable[..., WeightRecord]:
    """Makes records of files on the server."""

    def make(**changes: Any) -> WeightRecord:
        values = {
            "name": "fbnetv3_a0",
            "tag": "test",
            "layout": "fbnetv3",
            "resolution": 224,
            "resize": 256,
            "licence": "none",
            "url": site.url,
        }
        return WeightRecord(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def published_keys() -> dict[str, dict[str, tuple[int, ...]]]:
    """Tensor names and shapes of the published files."""
    keys = json.loads(gzip.decompress((GOLDEN / "published_keys.json.gz").read_bytes()))
    return {n: {key: tuple(shape) for key, shape in entries} for n, entries in keys.items()}


def _filled(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor that tests/golden/README.md's rules give to a published name."""
    x = np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)
    x = np.asarray(x, dtype=np.float32)
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith("running_var"):
        x = 0.5 * np.abs(x) + 0.5
    elif name == "head.conv.bias":
        x = 0.01 * x
    elif len(shape) == 4 and name != "head.conv.weight":
        x = x * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif name.endswith(".pwl.bn.weight"):
        x = 0.2 + 0.02 * x
    elif len(shape) == 1 and name.endswith("weight"):
        x = 1 + 0.1 * x
    elif name != "head.conv.weight":
        x = 0.1 * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


@pytest.fixture(scope="session")
def published_weights(
    published_keys: dict[str, dict[str, tuple[int, ...]]],
) -> Callable[[str], dict[str, torch.Tensor]]:
    """Makes the golden state dict of a published model, under the published names."""
    return lambda name: {key: _filled(key, s) for key, s in published_keys[name].items()}


@pytest.fixture(scope="session")
def published() -> dict[str, dict[str, Any]]:
    """What is known of the published models, golden logits among it."""
    return {m["name"]: m for m in json.loads((GOLDEN / "published.json").read_text())}
