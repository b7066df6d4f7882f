"""Where an app's image or a dataset's file is, as PoCo's registries store it: text, or a binary multiaddress.

iExec's SDK (every version up to 9) stores an address that it can parse as a multiaddress in its binary form, and any
other one, such as a URL or the name of a Docker image, as UTF-8. Of the multiaddresses only `/ipfs/…` names a file:

    a5 03          protocol 421 (ipfs, also called p2p), as a varint
    22             length of what follows, as a varint
    12 20 …        multihash: function (sha2-256), length, digest
"""

from __future__ import annotations

_IPFS = 421
#: Bitcoin's alphabet: no 0, O, I, l.
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
#: Bits of a number that one byte of a varint holds; the top bit says that another follows.
_VARINT_BITS = 7
#: A multihash's varints are short: nothing longer is one.
_VARINT_BYTES = 4


def location_text(stored: bytes) -> str:
    """A resource's address as people write it: `/ipfs/Qm…` for a binary multiaddress, else the stored text.

    Bytes that are not UTF-8 become U+FFFD.
    """
    multihash = _ipfs_multihash(stored)
    return stored.decode(errors="replace") if multihash is None else f"/ipfs/{encode_base58(multihash)}"


def _ipfs_multihash(stored: bytes) -> bytes | None:
    """The multihash of a binary `/ipfs/…` multiaddress; None for any other bytes."""
    protocol, rest = _read_varint(stored)
    if protocol != _IPFS:
        return None
    length, multihash = _read_varint(rest)
    _, after = _read_varint(multihash)
    size, digest = _read_varint(after)
    return multihash if multihash and length == len(multihash) and size == len(digest) else None


def _read_varint(data: bytes) -> tuple[int | None, bytes]:
    """The varint at the start of `data`, and the bytes after it; None if there is no valid one."""
    number = 0
    for position, byte in enumerate(data[:_VARINT_BYTES]):
        number |= (byte & 0x7F) << (_VARINT_BITS * position)
        if byte < 0x80:
            return number, data[position + 1 :]
    return None, b""


def encode_base58(data: bytes) -> str:
    """The bytes in base58, as CIDs of version 0 are written."""
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, len(_BASE58))
        digits = _BASE58[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return _BASE58[0] * zeros + digits
