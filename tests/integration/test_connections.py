"""HTTP connections to what is gone without a word."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from config.http_client import CUT_OFF_SECONDS, http_client
from tests.waiting import ample


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_kernel_watches_each_connection_so_that_a_peer_that_is_cut_off_is_not_waited_for() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            http_client(f"http://127.0.0.1:{server.server_port}", timeout=ample(5.0)) as client,
            client.stream("GET", "/") as answer,
        ):
            own = answer.extensions["network_stream"].get_extra_info("socket")
            assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, pause, probes = (
                own.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + pause * probes <= CUT_OFF_SECONDS
            # It would also end a connection to a peer that is there and slow to read.
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    finally:
        server.shutdown()
        server.server_close()
