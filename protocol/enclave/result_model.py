"""The zip inside the JSON by which enclaves store a result at a result proxy (iExec's 9.1), read as a stream.

{"chainTaskId": …, "zip": "<base64>", "deterministHash": …, "enclaveSignature": …}     Java, and ours
{"chainTaskId": …, "zip": [80, 75, …], …}                                              Rust
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from protocol.errors import BadMessage

#: Bytes before the zip at most: ids and numbers.
_HEAD_BYTES: Final = 64 * 1024
#: Bytes of one number at most, with the white space around it.
_NUMBER_BYTES: Final = 1024
_START: Final = re.compile(rb'"zip"\s*:\s*(["\[])')


def zip_in(body: Iterable[bytes]) -> Iterator[bytes]:
    """The zip's bytes, piece by piece; the body is read to its end. Raises BadMessage for a body that holds none."""
    pieces, head = iter(body), b""
    found = None
    while found is None:
        piece = next(pieces, None)
        if piece is None or len(head) > _HEAD_BYTES:
            raise BadMessage(why="the result holds no zip")
        head += piece
        found = _START.search(head)
    rest = chain([head[found.end() :]], pieces)
    try:
        yield from _base64(rest) if found[1] == b'"' else _numbers(rest)
    except (binascii.Error, ValueError):
        raise BadMessage(why="the result's zip is neither base64 nor a list of bytes") from None
    for _ in pieces:
        pass


def _base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a base64 text that ends with a quote. Raises BadMessage if it is cut."""
    kept = b""
    for piece in pieces:
        text, end, _ = (kept + piece).partition(b'"')
        whole = len(text) if end else len(text) - len(text) % 4
        yield base64.b64decode(text[:whole], validate=True)
        if end:
            return
        kept = text[whole:]
    raise BadMessage(why="the result was cut")


def _numbers(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a list of numbers that ends with a bracket. Raises BadMessage if it is cut, ValueError."""
    kept = b""
    for piece in pieces:
        text, end, _ = (kept + piece).partition(b"]")
        whole, _, kept = (text, b"", b"") if end else text.rpartition(b",")
        if len(kept) > _NUMBER_BYTES:
            raise ValueError
        if whole.strip():
            yield bytes(int(number) for number in whole.split(b","))
        if end:
            return
    raise BadMessage(why="the result was cut")
