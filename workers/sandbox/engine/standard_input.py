"""Standard input of a container that is about to start: written once, and nowhere stored by the engine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker

from protocol.errors import EngineTrouble


@contextmanager
def written(api: docker.APIClient, container: str, content: bytes, seconds: float) -> Iterator[None]:
    """Attach to a container that starts within the block, and write `content` after it, within so many seconds.

    Attached before the start: the container's input ends when the connection does, also that of a killed process.
    Raises EngineTrouble if the engine does not take it; docker's errors.
    """
    opened: Any = api.attach_socket(container, params={"stdin": 1, "stream": 1})
    try:
        yield
        # A `SocketIO` over a Unix socket, the socket itself over TLS.
        connection: socket.socket = getattr(opened, "_sock", opened)
        connection.settimeout(seconds)
        try:
            connection.sendall(content)
        except OSError as error:
            raise EngineTrouble(what=api.base_url, why=f"it takes no input ({type(error).__name__})") from error
    finally:
        # By its response, where docker-py leaves that: it has the connection too, which no other request may use.
        getattr(opened, "_response", opened).close()
