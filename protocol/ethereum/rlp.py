"""Recursive length prefix, the encoding of Ethereum transactions; only what is needed to write them.

one byte below 0x80   itself
up to 55 bytes        (0x80 or, for a list, 0xc0) + length ‖ content
longer                (0xb7 or, for a list, 0xf7) + size of length ‖ length ‖ content
"""

from __future__ import annotations


def encode_bytes(data: bytes) -> bytes:
    """`data` as an RLP string."""
    if len(data) == 1 and data[0] < 0x80:
        return data
    return _length_prefix(len(data), 0x80) + data


def encode_int(number: int) -> bytes:
    """`number` (not negative) as an RLP string: big-endian without leading zeros, zero is empty."""
    return encode_bytes(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def encode_list(*items: bytes) -> bytes:
    """An RLP list of items that are encoded already, in one or several parts."""
    content = b"".join(items)
    return _length_prefix(len(content), 0xC0) + content


def _length_prefix(length: int, offset: int) -> bytes:
    """The RLP header of an item of `length` bytes; `offset` is 0x80 for strings, 0xc0 for lists."""
    if length <= 55:
        return bytes((offset + length,))
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((offset + 55 + len(size),)) + size
