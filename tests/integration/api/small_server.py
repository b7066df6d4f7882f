"""A server of any application behind this release's protocol, with limits that a test can wait for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from config.http_server.connections import Connections, bounded_protocol
from config.http_server.server import http_server
from config.settings import read_settings
from ops.stack import ports
from tests.waiting import ample, wait_until


@contextmanager
def small_server(app: FastAPI, *, head: float = 0.3, connections: int = 6, read: float = 600.0) -> Iterator[int]:
    """`app` behind this release's protocol with short limits; yields its port."""
    port = ports.free_port()
    server = http_server(read_settings(), app, "127.0.0.1", port)
    server.config.http = bounded_protocol(Connections(100, connections, lambda _: False), head, read)
    server.config.http_protocol_class = server.config.http
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 10.0, what="the server")
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def ends(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    connection.settimeout(ample(10))
    said = b""
    try:
        while chunk := connection.recv(4096):
            said += chunk
    except ConnectionResetError:
        pass
    return said
