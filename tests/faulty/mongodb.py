"""A MongoDB whose disk is full, or that is away: a port in front of a real one."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import bson

from tests.faulty.port import Port

#: Commands that write.
WRITES = frozenset({"insert", "update", "delete", "findAndModify", "bulkWrite"})
#: What MongoDB answers to a write for which its disk has no room.
DISK_FULL = {"ok": 0.0, "errmsg": "No space left on device", "code": 14031, "codeName": "OutOfDiskSpace"}
#: A message's header, the kind whose first section is a command, and where that section's document begins.
_HEADER, _OP_MSG, _BODY = struct.Struct("<iiii"), 2013, 21


class MongoPort(Port):
    """Answers reads and refuses writes while `read_only` is set, which may be at any time."""

    read_only = False

    def pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """Copy requests to the server, except those that are refused."""
        with suppress(OSError, EOFError):
            while True:
                head = _exactly(near, _HEADER.size)
                size, number, _, kind = _HEADER.unpack(head)
                message = head + _exactly(near, size - _HEADER.size)
                if self.read_only and kind == _OP_MSG and _command(message) in WRITES:
                    answer = bytes(5) + bson.encode(DISK_FULL)
                    near.sendall(_HEADER.pack(_HEADER.size + len(answer), 0, number, _OP_MSG) + answer)
                else:
                    far.sendall(message)
        far.close()


def _command(message: bytes) -> str:
    size = int.from_bytes(message[_BODY : _BODY + 4], "little")
    return next(iter(bson.decode(message[_BODY : _BODY + size])))


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = source.recv(size - len(found))
        if not data:
            raise EOFError
        found += data
    return found
