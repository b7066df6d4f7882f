"""The id of a file in IPFS, CIDv0, as kubo and iExec's SDK compute it. Pure.

up to 256 KiB    one block (dag-pb with UnixFS in it); the id is its sha256, as a multihash in base58
more             a block for each 256 KiB, and one that names them in order: the id is that one's
"""

from __future__ import annotations

import hashlib

from protocol.ethereum.multiaddress import encode_base58

#: Bytes of a file in one block.
_PIECE_BYTES = 2**18
#: Links in one block at most: a larger file has more levels, which are not made here.
_MOST_PIECES = 174
#: Bytes of the largest file whose id is made here.
MOST_BYTES = _PIECE_BYTES * _MOST_PIECES
#: Head of a multihash: sha2-256, 32 bytes.
_SHA256 = b"\x12\x20"
#: UnixFS kind of a file.
_FILE = 2


def file_cid(content: bytes) -> str:
    """The CIDv0 of a file with this content of 1 to MOST_BYTES bytes."""
    pieces = [content[start : start + _PIECE_BYTES] for start in range(0, len(content), _PIECE_BYTES)]
    blocks = [_bytes(1, _number(1, _FILE) + _bytes(2, piece) + _number(3, len(piece))) for piece in pieces]
    if len(blocks) == 1:
        return encode_base58(_multihash(blocks[0]))
    links = b"".join(
        _bytes(2, _bytes(1, _multihash(block)) + _bytes(2, b"") + _number(3, len(block))) for block in blocks
    )
    sizes = b"".join(_number(4, len(piece)) for piece in pieces)
    return encode_base58(_multihash(links + _bytes(1, _number(1, _FILE) + _number(3, len(content)) + sizes)))


def _multihash(block: bytes) -> bytes:
    """The SHA-256 multihash of a block."""
    return _SHA256 + hashlib.sha256(block).digest()


def _bytes(field: int, value: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    """A field of a protocol buffer that holds a number."""
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """A number as unsigned LEB128, protobuf's varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
