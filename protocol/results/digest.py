"""The result digest two honest workers must agree on, to the byte (iexec-worker 9.2).

a file         sha256(content)
a directory    keccak(sha256(content) of each immediate file ‖ …), in Java's order of names
a callback     keccak(callback data)

Names are not hashed, only their order matters; sub-directories count for nothing. Reading the files, as a stream, is
the caller's part: here come their 32-byte sha256 sums.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes_leniently, to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import Hash32


def file_digest(sha256: bytes) -> Hash32:
    """Digest of a result that is one file, from the 32-byte sha256 of its content."""
    return Hash32(to_hex(sha256))


def directory_digest(entries: Iterable[tuple[str, bytes]]) -> Hash32:
    """Digest of a result that is a directory, from (name, 32-byte sha256) of its immediate files, in any order."""
    in_order = sorted(entries, key=lambda entry: java_order(entry[0]))
    return Hash32(to_hex(keccak(b"".join(sha256 for _, sha256 in in_order))))


def callback_digest(callback_data: str) -> Hash32:
    """Digest of a result that goes to a contract, from its `0x` hex; malformed hex is read as Java reads it."""
    if not callback_data:
        raise BadMessage(why="the callback data is empty")
    return Hash32(to_hex(keccak(to_bytes_leniently(callback_data))))


def java_order(name: str) -> bytes:
    """Sort key of a file name: by UTF-16 code units, so an emoji (surrogates) comes before a full-width tilde."""
    return name.encode("utf-16-be", "surrogatepass")
