"""A Docker registry on loopback (Docker talks plain HTTP to it) that serves one image made up here, or a fault."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from tests.faulty import Answer, Fault
from tests.faulty.http import Handler, beside

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def layer(files: Mapping[str, bytes]) -> bytes:
    """A layer with these executable files, as a tar archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def sparse_layer(size: int) -> bytes:
    """A layer of some kilobytes that unpacks to a file of `size` zeros: GNU's sparse format 1.0, in PAX records."""
    content, mapping = io.BytesIO(), b"1\n0\n1\n"
    data = mapping.ljust(tarfile.BLOCKSIZE, b"\0") + b"x"
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("app")
        entry.size = len(data)
        entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
        tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def blobs_of(plain: bytes, architecture: str = "amd64", config: Mapping[str, object] | None = None) -> dict[str, bytes]:
    """An image of one layer that runs `/app`: its blobs by digest, its manifest by the name `manifest`. `config`: what
    it says of itself besides.
    """
    packed = gzip.compress(plain, mtime=0)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/app"]} | dict(config or {}),
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
    fault: Callable[[str, int], Fault | None],
    *,
    program: bytes = b"",
    architecture: str = "amd64",
    blobs: dict[str, bytes] | None = None,
    hear: Callable[[str | None], None] = lambda _: None,
    basic: bool = False,
) -> Iterator[str]:
    """Host and port. `fault(path, n)`: what the `n`th request that is not for `/v2/` gets; None: the right answer.

    `hear` is given every `Authorization`; `basic`: none is served without one.
    """
    served = blobs if blobs is not None else blobs_of(layer({"app": program}), architecture)
    seen: list[str] = []

    class Registry(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            self.send(self._answer())

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def _answer(self) -> Fault:
            hear(self.headers["authorization"])
            if basic and self.headers["authorization"] is None:
                return Answer(401, headers=(("www-authenticate", "Basic realm=x"),))
            if self.path.rstrip("/") == "/v2":
                return Answer(200, b"{}")
            seen.append(self.path)
            wrong = fault(self.path, len(seen) - 1)
            if wrong is not None:
                return wrong
            name = "manifest" if "/manifests/" in self.path else self.path.rpartition("/")[2]
            if name not in served:
                return error(404, "BLOB_UNKNOWN")
            found = served[name]
            kind = _MANIFEST if name == "manifest" else "application/octet-stream"
            return Answer(200, found, kind, (("docker-content-digest", _digest(found)),))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    with beside(server):
        yield f"127.0.0.1:{server.server_port}"
