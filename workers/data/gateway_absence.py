"""Whether an IPFS gateway's "not found" proves that a deal names what does not exist. Pure.

What a gateway does not have now and what does not exist look alike: kubo 0.42 says `no link named "x" under <folder>`
for a folder that it does not have, too. The folder's own block is the proof: it never changes, and has no such entry.

    block (dag-pb)   field 1: UnixFS data, which begins with its kind       field 2, repeated: a link; its field 2: name
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from protocol.errors import BadMessage

#: Bytes of a gateway's answer that are read for its reason, and of a folder's block (IPFS blocks have 2 MiB at most).
REASON_BYTES, BLOCK_BYTES = 4096, 2 * 2**20
_REASON = re.compile(r'no link named "(?P<name>[^"\\]+)" under (?P<folder>[A-Za-z0-9]{46,100})(?![A-Za-z0-9])')
_FIRST, _SECOND = 1, 2
#: Protocol buffers' wire types.
_VARINT, _BYTES = 0, 2
#: UnixFS kind of a folder whose entries are all in its one block; large ones are spread over many (kind 5).
_WHOLE_FOLDER = 1


def missing_link(reason: str) -> tuple[str, str] | None:
    """(CID of a folder, name) that a gateway's answer says is missing; None if it says something else."""
    found = _REASON.search(reason)
    return None if found is None else (found["folder"], found["name"])


def lacks(block: bytes, name: str) -> bool:
    """Whether the block is a whole folder without an entry of that name; False if that cannot be told."""
    try:
        fields = list(_fields(block))
        data = [value for number, value in fields if number == _FIRST]
        if len(data) != 1 or next(_fields(data[0]), None) != (_FIRST, bytes([_WHOLE_FOLDER])):
            return False
        names = [
            value for number, link in fields if number == _SECOND for inner, value in _fields(link) if inner == _SECOND
        ]
    except BadMessage:
        return False
    return name.encode() not in names


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, value) of each field; a number is its least bytes, little-endian. Raises BadMessage."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        size, at = _varint(message, at)
        if key & 7 == _VARINT:
            yield key >> 3, size.to_bytes(max(1, (size.bit_length() + 7) // 8), "little")
            continue
        if key & 7 != _BYTES or at + size > len(message):
            raise BadMessage(why="it is no dag-pb block")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The protobuf varint at a place of a message, and the place behind it. Raises BadMessage."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise BadMessage(why="it is no dag-pb block")
