"""Block headers that a subscription has announced, so that what they tell need not be asked for again.

    subscription's thread ──put──► Announced ──between──► the watcher: what links its cursor to the head
                                             └─take─────► a lane: the head that has woken it, once

What an announced header says is worth as much as the node's word when it is asked: a reader checks the same of both.
Nothing is kept of a subscription that has ended, for blocks that it announced may be replaced without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.types import BlockNumber

#: A header as JSON-RPC writes it, but without the block's transactions.
HeaderJson = Mapping[str, Any]

#: Headers kept, below the newest: as many as the watcher reads in one step.
KEPT = 32


class Announced:
    """The newest headers of one subscription. Put in by its thread, read by others."""

    def __init__(self) -> None:
        # Replaced as a whole, so that a reader in another thread sees one state or the other.
        self._headers: Mapping[BlockNumber, HeaderJson] = {}
        self._newest: HeaderJson | None = None

    def put(self, number: BlockNumber, header: HeaderJson) -> None:
        """Add the header of the block that is the head now: those above it were taken back."""
        kept = {known: it for known, it in self._headers.items() if number - KEPT < known < number}
        self._headers = {**kept, number: header}
        self._newest = header

    def between(self, first: BlockNumber, last: BlockNumber) -> list[HeaderJson]:
        """The headers of blocks first … last; none unless each of them was announced."""
        headers = self._headers
        found = [headers[number] for at in range(first, last + 1) if (number := BlockNumber(at)) in headers]
        return found if len(found) == last + 1 - first else []

    def take(self) -> HeaderJson | None:
        """The newest header, if none took it before; else None."""
        newest, self._newest = self._newest, None
        return newest

    def forget(self) -> None:
        """Forget everything: the subscription has ended."""
        self._headers, self._newest = {}, None
