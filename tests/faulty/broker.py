"""A RabbitMQ that is short of memory or disk, as its clients meet it: a port in front of a real one."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.faulty.port import Port

#: Class and method of AMQP's basic.publish, as they are in its frame.
_PUBLISH = b"\x00\x3c\x00\x28"


class BrokerPort(Port):
    """While `alarmed` is set, nothing more is read of a connection that publishes, and others are served: what
    RabbitMQ does with publishers while it has an alarm.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._well = threading.Event()
        self._well.set()

    @property
    def alarmed(self) -> bool:
        """Whether it takes no messages; may be changed at any time."""
        return not self._well.is_set()

    @alarmed.setter
    def alarmed(self, alarmed: bool) -> None:
        if alarmed:
            self._well.clear()
        else:
            self._well.set()

    def close(self) -> None:
        """Close the port and all connections, also those that are held back."""
        self._well.set()
        super().close()

    def pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """Copy what comes from a client, until it publishes and there is an alarm."""
        with suppress(OSError):
            while data := near.recv(65536):
                if _PUBLISH in data:
                    self._well.wait()
                far.sendall(data)
        far.close()
