"""A RabbitMQ that is short of memory or disk, as its management API tells it: a port in front of a real one."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from tests.faulty.port import Port

#: What is asked for alarms, and what a broker (4.1) whose memory is above its watermark answered; so it does of its
#: disk.
_QUESTION = b"GET /api/health/checks/alarms "
_ALARM = {"status": "failed", "reason": "There are alarms in effect in the cluster"}


class ManagementPort(Port):
    """Passes everything on, and says that there is an alarm while `short_of` names memory or disk."""

    short_of: str | None = None

    def pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """Copy requests to the server, except the one for alarms."""
        with suppress(OSError):
            while data := near.recv(65536):
                if self.short_of is not None and data.startswith(_QUESTION):
                    near.sendall(_alarm(self.short_of))
                else:
                    far.sendall(data)
        far.close()


def _alarm(resource: str) -> bytes:
    body = json.dumps({**_ALARM, "alarms": [{"resource": resource, "node": "rabbit@broker"}]}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body
