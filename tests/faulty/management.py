"""A RabbitMQ that is short of memory, as its management API tells it: a port in front of a real one."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from tests.faulty.port import Port

#: What is asked for alarms, and what a broker (4.1) whose memory is above its watermark answered.
_QUESTION = b"GET /api/health/checks/alarms "
_ALARM = {
    "status": "failed",
    "reason": "There are alarms in effect in the cluster",
    "alarms": [{"resource": "memory", "node": "rabbit@broker"}],
}


class ManagementPort(Port):
    """Passes everything on, and says that there is an alarm while `short_of_memory` is set."""

    short_of_memory = False

    def pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """Copy requests to the server, except the one for alarms."""
        body = json.dumps(_ALARM).encode()
        head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        with suppress(OSError):
            while data := near.recv(65536):
                if self.short_of_memory and data.startswith(_QUESTION):
                    near.sendall(f"{head}\r\n\r\n".encode() + body)
                else:
                    far.sendall(data)
        far.close()
