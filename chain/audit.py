"""Comparing what is stored with what the chain says: what was missed, and what should not be there.

The watcher should leave nothing to find. An audit proves it, and repairs what a bug, a lying node or a restored backup
left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chain.watch import Watcher
from protocol.events import Seen
from protocol.types import BlockNumber


class LogStore(Protocol):
    """What an audit reads of the store."""

    def between(self, first: BlockNumber, last: BlockNumber) -> Sequence[Seen]:
        """Stored events of blocks first … last that are not orphaned."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One stretch of blocks: events the store lacks, and events the chain does not have."""

    first: BlockNumber
    last: BlockNumber
    missing: tuple[Seen, ...]
    extra: tuple[Seen, ...]

    @property
    def clean(self) -> bool:
        """Whether both tell the same."""
        return not self.missing and not self.extra


def audit(watcher: Watcher, store: LogStore, first: BlockNumber, last: BlockNumber) -> Iterator[Audit]:
    """Compare blocks first … last stretch by stretch; changes nothing (`Watcher.replay` stores what is missing).

    Ends early if the chain changes meanwhile. Raises RpcUnavailable or RpcError.
    """
    number = first
    for caught in watcher.read(first, last):
        end = caught.blocks[-1].number
        chain = {_place(seen): seen for seen in caught.seen}
        stored = {_place(seen): seen for seen in store.between(number, end)}
        yield Audit(
            first=number,
            last=end,
            missing=tuple(seen for place, seen in chain.items() if place not in stored),
            extra=tuple(seen for place, seen in stored.items() if place not in chain),
        )
        number = BlockNumber(end + 1)


def _place(seen: Seen) -> tuple[str, int]:
    return seen.block_hash, seen.log_index
