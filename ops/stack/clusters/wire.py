"""MongoDB's wire protocol, as far as a router needs it: one command a message, its documents left as they came.

OP_MSG     flags, section 0 (the command), sections 1 (documents of a bulk write)
OP_QUERY   the first word of a client, before it knows what the server speaks; answered with OP_REPLY
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import bson

_HEADER = struct.Struct("<iiii")
_INT = struct.Struct("<i")
_REPLY = struct.Struct("<iqii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


@dataclass(frozen=True, slots=True)
class Message:
    """One command. `rest`: the sections behind it, as they came."""

    request_id: int
    opcode: int
    body: dict[str, Any]
    rest: bytes = b""

    @property
    def name(self) -> str:
        """The command's name."""
        return next(iter(self.body))

    @property
    def database(self) -> str:
        """Name of the database that the command is for."""
        return str(self.body.get("$db", "admin"))

    def with_body(self, body: dict[str, Any]) -> Message:
        """The same message with another command."""
        return replace(self, body=body)

    def to_bytes(self) -> bytes:
        """The message for a server."""
        return _packed(self.request_id, 0, _OP_MSG, _INT.pack(0) + b"\0" + bson.encode(self.body) + self.rest)

    def answer(self, document: Mapping[str, Any]) -> bytes:
        """The message that answers this one."""
        if self.opcode == _OP_QUERY:
            return _packed(0, self.request_id, _OP_REPLY, _REPLY.pack(8, 0, 0, 1) + bson.encode(document))
        return _packed(0, self.request_id, _OP_MSG, _INT.pack(0) + b"\0" + bson.encode(document))


def read(connection: socket.socket) -> bytes | None:
    """The next message as it came; None at the end."""
    start = _exactly(connection, _INT.size)
    if start is None:
        return None
    rest = _exactly(connection, _INT.unpack(start)[0] - _INT.size)
    return None if rest is None else start + rest


def parse(raw: bytes) -> Message:
    """A client's message. Raises ValueError for one of another kind."""
    _, request_id, _, opcode = _HEADER.unpack_from(raw)
    at = _HEADER.size + _INT.size
    if opcode == _OP_QUERY:
        at = raw.index(b"\0", at) + 1 + 2 * _INT.size
        return Message(request_id, opcode, bson.decode(raw[at : at + _INT.unpack_from(raw, at)[0]]))
    if opcode != _OP_MSG or raw[at] != 0:
        raise ValueError(f"a message of kind {opcode}")
    end = at + 1 + _INT.unpack_from(raw, at + 1)[0]
    return Message(request_id, opcode, bson.decode(raw[at + 1 : end]), raw[end:])


def documents(sections: bytes) -> dict[str, list[dict[str, Any]]]:
    """What sections behind a command hold, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    at = 0
    while at < len(sections):
        # One byte says of what kind the section is, four how long.
        end = at + 1 + _INT.unpack_from(sections, at + 1)[0]
        name_end = sections.index(b"\0", at + 1 + _INT.size)
        found[sections[at + 1 + _INT.size : name_end].decode()] = bson.decode_all(sections[name_end + 1 : end])
        at = end
    return found


def _packed(request_id: int, answers: int, opcode: int, content: bytes) -> bytes:
    """A message with its header."""
    return _HEADER.pack(_HEADER.size + len(content), request_id, answers, opcode) + content


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    """So many bytes of a connection; None if it ends before."""
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            return None
        received += piece
    return bytes(received)
