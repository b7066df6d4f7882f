"""A node's own socket on the same machine (geth.ipc and the like): JSON-RPC without HTTP or WebSocket around it.

Messages follow one another, with or without white space between; where one ends its JSON says.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Self

#: Bytes taken from the socket at once: a header is 2 kB.
_CHUNK = 2**16
#: Largest message taken, bytes.
_MOST = 2**20


class IpcConnection:
    """An open socket at `path`; the part of a WebSocket connection's face that subscriptions need."""

    def __init__(self, path: str, open_timeout: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(open_timeout)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._received = b""

    def send(self, message: str) -> None:
        """Send one message. Raises OSError."""
        self.socket.sendall(message.encode())

    def recv(self, timeout: float | None = None) -> str:
        """The next message. Raises TimeoutError after `timeout` seconds, OSError when the node is gone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (message := self._complete()) is None:
            if len(self._received) > _MOST:
                raise OSError(f"a message of more than {_MOST} bytes")
            self.socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            chunk = self.socket.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError("the node closed its socket")
            self._received += chunk
        return message

    def _complete(self) -> str | None:
        """The first whole message among what was received, taken out; None if there is none yet."""
        # Latin 1 keeps every byte, so a character cut in two by the socket is whole again later.
        text = self._received.decode("latin-1").lstrip()
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None
        self._received = text[end:].encode("latin-1")
        return text[:end].encode("latin-1").decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
