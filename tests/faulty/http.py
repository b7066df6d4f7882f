"""What the misbehaving servers share: sending a fault, and a server that runs beside a test."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

from tests.faulty import Answer, Fault, HangUp


class Handler(http.server.BaseHTTPRequestHandler):
    """A quiet handler that can send faults."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def send(self, fault: Fault) -> None:
        """Send a whole answer, or hang up."""
        match fault:
            case Answer(status, body, kind, headers):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
            case HangUp(after):
                if after:
                    self.send_response(200)
                    self.send_header("content-length", str(10 * after))
                    self.end_headers()
                    self.wfile.write(b"x" * after)
                self.close_connection = True


@contextmanager
def beside(server: BaseServer) -> Iterator[None]:
    """Serve from a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
