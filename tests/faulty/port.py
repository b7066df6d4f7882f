"""A port in front of a real server that can be away: whoever is connected is cut off, and nobody else gets through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Port:
    """Passes on to `host:port`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._away = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def number(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    @property
    def away(self) -> bool:
        """Whether the server cannot be reached through it; may be changed at any time."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        if away:
            self._cut()

    def accept(self) -> None:
        """Serve until the port is closed."""
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._away:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._open += (near, far)
            for copy in (self.pass_on, self._pass_back):
                threading.Thread(target=copy, args=(near, far), daemon=True).start()

    def pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """Copy what comes from `near` to the server."""
        with suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
        far.close()

    def _pass_back(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
        near.close()

    def close(self) -> None:
        """Close the port and all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()

    def _cut(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()


@contextmanager
def serving(port: Port) -> Iterator[None]:
    """Serve from a thread until the block ends."""
    thread = threading.Thread(target=port.accept, name="faulty-port", daemon=True)
    thread.start()
    try:
        yield
    finally:
        port.close()
        thread.join()
