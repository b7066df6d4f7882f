"""What a container printed, by stream: one request, of which the engine's answer is frames of both.

stream (1 byte: 1 stdout, 2 stderr, 3 the engine's own error), 3 zeros, length (4 bytes, big-endian) │ as many bytes │
next frame …
"""

from __future__ import annotations

import struct
from typing import Any

#: Head of a frame.
_HEAD = struct.Struct(">BxxxL")
STDOUT, STDERR = 1, 2
#: Bytes read at a time of a frame: an app may print lines of any length.
_PIECE_BYTES = 2**18


def read_frames(answer: Any, most: int) -> tuple[bytes, bytes]:
    """The first `most` bytes of stdout and of stderr from an open answer, which is read to its end or until both are
    full. Raises ValueError for an answer that is cut off, or in which the engine says that it lacks something.
    """
    kept = {STDOUT: bytearray(), STDERR: bytearray()}
    while any(len(stream) < most for stream in kept.values()):
        head = answer.read(_HEAD.size)
        if not head:
            break
        if len(head) < _HEAD.size:
            raise ValueError("what the app printed is cut off")
        number, left = _HEAD.unpack(head)
        if number not in kept:
            raise ValueError("the engine cannot read all that the app printed")
        stream = kept[number]
        while left:
            piece = answer.read(min(left, _PIECE_BYTES))
            if not piece:
                raise ValueError("what the app printed is cut off")
            left -= len(piece)
            if len(stream) < most:
                stream += piece[: most - len(stream)]
    return bytes(kept[STDOUT]), bytes(kept[STDERR])
