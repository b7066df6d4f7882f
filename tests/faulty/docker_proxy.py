"""A proxy in front of a real Docker engine's socket that answers some requests wrongly."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import ClassVar

from tests.faulty import Fault
from tests.faulty.http import Handler, beside

#: Headers that belong to one connection.
_OWN = frozenset({"transfer-encoding", "content-length", "connection"})


class _Engine(http.client.HTTPConnection):
    """A connection to the engine's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        request, _ = super().get_request()
        return request, ("unix", 0)


class _Proxy(Handler):
    """Passes a request on, or answers it wrongly."""

    upstream: ClassVar[str]
    fault: ClassVar[Callable[[str, str], Fault | None]]

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        body = self._body()
        wrong = type(self).fault(self.command, self.path)
        if wrong is not None:
            self.send(wrong)
            return
        engine = _Engine(self.upstream.removeprefix("unix://"))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        try:
            engine.request(self.command, self.path, body or None, headers)
            self._pass_on(engine.getresponse())
        except (OSError, http.client.HTTPException):
            # One of the two has hung up, e.g. a wait whose time is over.
            self.close_connection = True
        finally:
            engine.close()

    do_POST = do_DELETE = do_HEAD = do_PUT = do_GET  # noqa: N815 - the library's names

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OWN:
                self.send_header(name, value)
        length = answer.getheader("content-length")
        if length is not None or answer.status in {204, 304} or self.command == "HEAD":
            content = answer.read()
            self.send_header("content-length", length or "0")
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while piece := answer.read1(65536):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


@contextmanager
def docker_proxy(upstream: str, path: Path, fault: Callable[[str, str], Fault | None]) -> Iterator[str]:
    """Address of the proxy, whose socket is `path`. `fault(method, path)`: what a request gets; None: its answer."""
    proxy = type("Proxy", (_Proxy,), {"upstream": upstream, "fault": staticmethod(fault)})
    with beside(_Server(str(path), proxy)):
        yield f"unix://{path}"
