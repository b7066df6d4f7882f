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
    """The address as people write it: `/ipfs/Qm…` for a binary one, else the text, U+FFFD for what is no UTF-8."""
    multihash = _of_ipfs(stored)
    return stored.decode(errors="replace") if multihash is None else f"/ipfs/{_base58(multihash)}"


def _of_ipfs(stored: bytes) -> bytes | None:
    """The multihash of a binary `/ipfs/…` address, None for anything else."""
    protocol, rest = _varint(stored)
    if protocol != _IPFS:
        return None
    length, multihash = _varint(rest)
    _, after = _varint(multihash)
    size, digest = _varint(after)
    return multihash if multihash and length == len(multihash) and size == len(digest) else None


def _varint(data: bytes) -> tuple[int | None, bytes]:
    """A number in front of `data`, and what follows it; None if there is none."""
    number = 0
    for position, byte in enumerate(data[:_VARINT_BYTES]):
        number |= (byte & 0x7F) << (_VARINT_BITS * position)
        if byte < 0x80:
            return number, data[position + 1 :]
    return None, b""


def _base58(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, len(_BASE58))
        digits = _BASE58[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return _BASE58[0] * zeros + digits
