"""Servers that answer drop by drop, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds between two dripped pieces.
DRIP = 0.02


@contextmanager
def serving(first: bytes, drip: bytes = b"") -> Iterator[str]:
    """A server that sends `first`, then `drip` again and again until the other side hangs up; its host and port."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(first)
                while drip and not over.wait(DRIP):
                    connection.sendall(drip)
            except OSError:
                over.set()

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
