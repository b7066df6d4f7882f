"""A message whose body never ends, in the frames of AMQP: no client library sends one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from amqp import Channel

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_BASIC, _PUBLISH = 60, 40


@dataclass(frozen=True, slots=True)
class Endless:
    """A message that is being sent."""

    socket: Any
    body: bytes

    def more(self, size: int) -> None:
        """Send so many bytes more of it. Raises OSError once the broker has closed the connection."""
        for _ in range(size // len(self.body) + 1):
            self.socket.sendall(self.body)


def begin_endless_message(channel: Channel, size: int) -> Endless:
    """Announce a message of a terabyte, and send `size` bytes of it."""
    connection: Any = channel.connection

    def frame(kind: int, payload: bytes) -> bytes:
        return struct.pack(">BHI", kind, channel.channel_id, len(payload)) + payload + _END

    exchange, key = b"amq.direct", b"x"
    publish = struct.pack(">HHH", _BASIC, _PUBLISH, 0) + bytes([len(exchange)]) + exchange + bytes([len(key)]) + key
    header = struct.pack(">HHQH", _BASIC, 0, 2**40, 0)
    body = bytes(connection.frame_max - 8)
    begun = Endless(connection.transport.sock, frame(_BODY, body))
    begun.socket.sendall(frame(_METHOD, publish + b"\0") + frame(_HEADER, header))
    begun.more(size)
    return begun
