"""Compares stored events and deals with the chain: what is missing, what should not be there; and repairs the store.

    chain                              store
    SchedulerNotice of our pool   ◄──► logs   (by block hash and index)   and   deals   (by block and id)
    events of our tasks           ◄──► logs

The watcher should leave nothing to find. An audit proves it; a replay repairs what a bug, a lying node or a restored
backup left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chain.watch.watcher import Caught, Watcher, report_late_finds
from protocol.errors import ChainMoved, RpcUnavailable
from protocol.poco.events import BlockRef, SchedulerNotice, Seen, TaskInitialize
from protocol.types import BlockHash, BlockNumber, DealId, TaskId

#: Times that a stretch is read because the chain changed under it, or the node did not answer.
TRIES = 5


@dataclass(frozen=True, slots=True)
class DealPlace:
    """A deal and the block it was matched in."""

    deal_id: DealId
    block_number: BlockNumber
    block_hash: BlockHash


@dataclass(frozen=True, slots=True)
class Audit:
    """Blocks `first` … `last.number` compared: what the store lacks, and what it has that the chain does not."""

    first: BlockNumber
    last: BlockRef
    missing: tuple[Seen, ...] = ()
    extra: tuple[Seen, ...] = ()
    missing_deals: tuple[DealPlace, ...] = ()
    extra_deals: tuple[DealPlace, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether store and chain agree."""
        return not (self.missing or self.extra or self.missing_deals or self.extra_deals)

    @property
    def tasks(self) -> list[TaskId]:
        """Tasks whose stored events differ from the chain's, each once."""
        events = [seen.event for seen in (*self.missing, *self.extra)]
        return list(dict.fromkeys(event.task_id for event in events if not isinstance(event, SchedulerNotice)))


class AuditStore(Protocol):
    """What an audit reads of the store, and how a replay changes it."""

    def cursor(self) -> BlockRef | None:
        """The highest block whose events are stored."""

    def logs_between(self, first: BlockNumber, last: BlockNumber) -> Sequence[Seen]:
        """Stored events of blocks first … last that are not orphaned."""

    def deals_between(self, first: BlockNumber, last: BlockNumber) -> Sequence[DealPlace]:
        """Stored deals matched in blocks first … last that are not orphaned."""

    def repair(self, found: Audit) -> None:
        """Store what is missing, orphan what is too much, and mark the deals and tasks concerned for the next sweep."""


def audit(watcher: Watcher, store: AuditStore, first: BlockNumber, last: BlockNumber) -> Iterator[Audit]:
    """Compare stored events of blocks first … last with the chain, in steps; changes nothing.

    The blocks must have been followed. Raises ChainMoved, WrongChain, RpcUnavailable or RpcError.
    """
    return _audit_steps(watcher, store, first, last, repairing=False)


def replay(watcher: Watcher, store: AuditStore, first: BlockNumber, last: BlockNumber) -> Iterator[Audit]:
    """Audit blocks first … last and repair the store, in steps; the cursor does not move.

    If a task or deal turns up that was unknown, the replay goes on up to the cursor: its events above `last` were taken
    for another pool's. Raises as `audit`; repeating it is harmless.
    """
    return _audit_steps(watcher, store, first, last, repairing=True)


def _audit_steps(
    watcher: Watcher, store: AuditStore, first: BlockNumber, last: BlockNumber, *, repairing: bool
) -> Iterator[Audit]:
    """The common loop of `audit` and `replay`: read blocks again, compare, and repair the store if `repairing`."""
    if not watcher.still_on_chain(last):
        # Compared with another branch, or with another chain, everything stored would be too much.
        raise ChainMoved(block=last)
    pool_filter, lost = watcher.new_filter(), set[TaskId]()
    number, tries = first, 0
    while number <= last:
        tries += 1
        if tries > TRIES:
            raise ChainMoved(block=number)
        try:
            for caught in watcher.read(number, last, pool_filter):
                found = _compare_step(number, caught, store)
                begun = {seen.event.task_id for seen in found.missing if isinstance(seen.event, TaskInitialize)}
                if not found.clean and not (
                    watcher.stands(found.last) and _repair_step(found, watcher, store, repairing=repairing)
                ):
                    # Replaced meanwhile, by the chain or by the watcher that works beside us: once more.
                    break
                lost |= begun if not repairing else set()
                pool_filter.stored(but=lost)
                yield found
                tries, number = 0, BlockNumber(found.last.number + 1)
                cursor = store.cursor()
                if (begun or found.missing_deals) and repairing and cursor is not None:
                    last = max(last, cursor.number)
        except RpcUnavailable:
            # What was compared stays: a node that was slow once does not end the reading of a long history.
            if tries == TRIES:
                raise


def _repair_step(found: Audit, watcher: Watcher, store: AuditStore, *, repairing: bool) -> bool:
    """Repair the store for one step if `repairing`; returns whether its blocks are still on the chain, so that nothing
    of a lost branch stays.
    """
    if not repairing:
        return True
    store.repair(found)
    report_late_finds(found.missing, "replay")
    return watcher.stands(found.last)


def _compare_step(first: BlockNumber, caught: Caught, store: AuditStore) -> Audit:
    """The differences between the events that one step read and those stored for its blocks."""
    last = caught.blocks[-1]
    chain = {seen.place: seen for seen in caught.seen}
    stored = {seen.place: seen for seen in store.logs_between(first, last.number)}
    noticed = {_deal_place(seen.event, seen): None for seen in caught.seen if isinstance(seen.event, SchedulerNotice)}
    deals = dict.fromkeys(store.deals_between(first, last.number))
    return Audit(
        first=first,
        last=last,
        missing=tuple(seen for place, seen in chain.items() if stored.get(place) != seen),
        extra=tuple(seen for place, seen in stored.items() if place not in chain),
        missing_deals=tuple(deal for deal in noticed if deal not in deals),
        extra_deals=tuple(deal for deal in deals if deal not in noticed),
    )


def _deal_place(notice: SchedulerNotice, seen: Seen) -> DealPlace:
    """The deal that a SchedulerNotice announces, and the block it was matched in."""
    return DealPlace(notice.deal_id, seen.block_number, seen.block_hash)
