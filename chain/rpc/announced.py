"""Block headers that a subscription has announced, so that they need not be requested again.

    subscription's thread ──put──► Announced ──between──► the watcher: what links its cursor to the head
                                             └─take─────► a lane: the head that woke it, once, and what that stands on

An announced header is believed no more than the node's answer to a request: readers check both in the same way.
When a subscription ends, its headers are dropped, since blocks that it announced may be replaced without notice; what
its thread still puts after that is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from protocol.types import BlockHash, BlockNumber

#: A header as JSON-RPC writes it, but without the block's transactions.
HeaderJson = Mapping[str, Any]
#: Called with each announced header, in the subscription's thread.
OnHeader = Callable[[BlockNumber, HeaderJson], None]

#: Headers kept, below the newest: more than pass between two runs of an idle lane.
KEPT = 64
#: The fields that are kept of each: those that readers use.
_FIELDS = frozenset(
    (
        "number",
        "hash",
        "parentHash",
        "timestamp",
        "baseFeePerGas",
        "gasLimit",
        "gasUsed",
        "logsBloom",
        "transactionsRoot",
    )
)


@dataclass(frozen=True, slots=True)
class AnnouncedHead:
    """A head as it was announced. `below`: hashes of the blocks that it stands on, as far as headers name them."""

    header: HeaderJson
    below: frozenset[BlockHash] = frozenset()


class _Heard:
    """The newest headers of one subscription."""

    def __init__(self) -> None:
        # Replaced as a whole, so that a reader in another thread sees one state or the other.
        self.headers: Mapping[BlockNumber, HeaderJson] = {}
        self.newest: BlockNumber | None = None

    def put(self, number: BlockNumber, header: HeaderJson) -> None:
        """Add the header of the block that is the head now: those above it were taken back."""
        kept = {known: it for known, it in self.headers.items() if number - KEPT < known < number}
        self.headers = {**kept, number: {name: header[name] for name in _FIELDS & header.keys()}}
        self.newest = number


class Announced:
    """The newest headers of the subscription that is open. Put in by its thread, read by others."""

    def __init__(self) -> None:
        self._heard = _Heard()

    def begin(self) -> OnHeader:
        """What to call with each header of a new subscription. Forgets the one before."""
        self._heard = _Heard()
        return self._heard.put

    def forget(self) -> None:
        """Forget everything, also what is put from now on: the subscription has ended."""
        self._heard = _Heard()

    def between(self, first: BlockNumber, last: BlockNumber) -> list[HeaderJson]:
        """The headers of blocks first … last; none unless each of them was announced."""
        headers = self._heard.headers
        found = [headers[number] for at in range(first, last + 1) if (number := BlockNumber(at)) in headers]
        return found if len(found) == last + 1 - first else []

    def take(self) -> AnnouncedHead | None:
        """The newest head, if none took it before; else None."""
        heard = self._heard
        newest, heard.newest = heard.newest, None
        headers = heard.headers
        if newest is None or newest not in headers:
            return None
        return AnnouncedHead(headers[newest], frozenset(_below(headers, newest)))


def _below(headers: Mapping[BlockNumber, HeaderJson], number: BlockNumber) -> Iterator[BlockHash]:
    """Hashes of the blocks that this one stands on, downwards, as far as announced headers name their parents."""
    while (parent := headers[number].get("parentHash")) is not None:
        yield BlockHash(parent)
        number = BlockNumber(number - 1)
        if number not in headers or headers[number].get("hash") != parent:
            return
