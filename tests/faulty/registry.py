"""A Docker registry on loopback (Docker talks plain HTTP to it) that serves one image made up here, or a fault."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from tests.faulty import Answer, Fault
from tests.faulty.http import Handler, beside

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _blobs(program: bytes, architecture: str) -> dict[str, bytes]:
    """An image with one file `/app`: its blobs by digest, its manifest by the name `manifest`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("app")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    plain = layer.getvalue()
    packed = gzip.compress(plain, mtime=0)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/app"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
    }
    about = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(about),
            "digest": _digest(about),
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": len(packed),
                "digest": _digest(packed),
            }
        ],
    }
    return {_digest(about): about, _digest(packed): packed, "manifest": json.dumps(manifest).encode()}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def error(status: int, code: str, message: str = "") -> Answer:
    """An error as the registry protocol has it."""
    return Answer(status, json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode())


@contextmanager
def registry(
    fault: Callable[[str, int], Fault | None], *, program: bytes = b"", architecture: str = "amd64"
) -> Iterator[str]:
    """Host and port. `fault(path, n)`: what the `n`th request that is not for `/v2/` gets; None: the right answer."""
    blobs = _blobs(program, architecture)
    seen: list[str] = []

    class Registry(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            self.send(self._answer())

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def _answer(self) -> Fault:
            if self.path.rstrip("/") == "/v2":
                return Answer(200, b"{}")
            seen.append(self.path)
            wrong = fault(self.path, len(seen) - 1)
            if wrong is not None:
                return wrong
            name = "manifest" if "/manifests/" in self.path else self.path.rpartition("/")[2]
            if name not in blobs:
                return error(404, "BLOB_UNKNOWN")
            found = blobs[name]
            kind = _MANIFEST if name == "manifest" else "application/octet-stream"
            return Answer(200, found, kind, (("docker-content-digest", _digest(found)),))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    with beside(server):
        yield f"127.0.0.1:{server.server_port}"
