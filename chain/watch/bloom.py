"""The 2048-bit filter in every block header that says which addresses and topics its logs may have.

"No" is certain, "yes" has to be checked: if a node shows no logs of a block whose filter says yes, either the filter
happens to match, or the node hides some.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.keccak import keccak

#: Bits of the filter, and how many each item sets (yellow paper, 4.3.1).
_BITS = 2048
_PAIRS = (0, 2, 4)


@lru_cache(maxsize=256)
def bits(item: str) -> int:
    """A bloom filter with only this `0x` hex address or topic in it."""
    digest = keccak(to_bytes(item))
    mask = 0
    for start in _PAIRS:
        mask |= 1 << (int.from_bytes(digest[start : start + 2], "big") % _BITS)
    return mask


def may_hold(bloom: int, address: str, topics: Iterable[str]) -> bool:
    """Whether a block with this bloom filter may have a log of `address` whose first topic is one of `topics`."""
    return _contains(bits(address), bloom) and any(_contains(bits(topic), bloom) for topic in topics)


def _contains(mask: int, bloom: int) -> bool:
    """Whether all bits of `mask` are set in `bloom`."""
    return bloom & mask == mask
