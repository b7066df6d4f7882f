"""From a deal on chain to task rows: read the deal and what it points to, store it, and hand its tasks on.

A deal that cannot be read now stays `new` in the store and is tried again; none is skipped. One that can never be read
(a number that nothing can store, an app that the contract itself refuses to show), or is not the wallet's to serve, is
quarantined with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from chain.contracts.hub import App, Category, Deal, Hub
from chain.contracts.hub import Dataset as ChainDataset
from chain.rpc.answers import Absent, Answer, Broken, Known, Unknown, value_of
from config.metrics import DEALS
from pipeline.domain.records import DealRecord, TaskRecord
from pipeline.flow import isolate
from pipeline.store.client import Store
from pipeline.store.deals import Lease
from protocol.errors import RpcUnavailable, Unreadable
from protocol.poco.deadlines import contribution_deadline, final_deadline
from protocol.poco.events import BlockRef
from protocol.poco.ids import task_id
from protocol.types import ZERO_ADDRESS, BlockNumber, Contract, DealId, TaskId, Wallet
from protocol.wire import Dataset

log = structlog.get_logger(__name__)

#: Tasks of one deal stored at a time, in a fraction of a second; a bag may hold many thousands.
PIECE = 1000
#: First tasks of a deal that are advanced at once; the rest as the lane has capacity.
AT_ONCE = 50
#: Seconds until a deal that cannot be read now is read again, so that others are read meanwhile.
UNREAD_SECONDS = 10.0
#: Apps and datasets remembered; each entry is some hundred bytes, and anyone may register more.
MOST_REMEMBERED = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RegistryCache:
    """Apps and datasets read before; what a registry says of one never changes."""

    hub: Hub
    _apps: dict[Contract, App] = field(default_factory=dict)
    _datasets: dict[Contract, ChainDataset] = field(default_factory=dict)

    def app(self, address: Contract, at: BlockRef | None) -> App:
        """An app, from memory or from the chain at block `at`. Raises RpcUnavailable, Unreadable."""
        if address not in self._apps:
            _drop_oldest(self._apps)
            self._apps[address] = self._usable(f"app {address}", self.hub.app(address, at))
        return self._apps[address]

    def dataset(self, address: Contract, at: BlockRef | None) -> ChainDataset:
        """A dataset, from memory or from the chain. Raises as `app`."""
        if address not in self._datasets:
            _drop_oldest(self._datasets)
            self._datasets[address] = self._usable(f"dataset {address}", self.hub.dataset(address, at))
        return self._datasets[address]

    def category(self, number: int, at: BlockRef | None) -> Category:
        """A category, from memory (of the hub) or from the chain. Raises as `app`."""
        return self._usable(f"category {number}", self.hub.category(number, at))

    def _usable(self, what: str, answer: Answer[T] | Broken) -> T:
        """What the registry answered. Raises Unreadable for what is broken for ever, RpcUnavailable."""
        if isinstance(answer, Broken):
            raise Unreadable(what=what, why=answer.why)
        return value_of(answer, self.hub.rpc.name)


def _drop_oldest(remembered: dict[Contract, T]) -> None:
    """Drop the oldest entry when the cache is full."""
    if len(remembered) >= MOST_REMEMBERED:
        remembered.pop(next(iter(remembered)))


@dataclass(frozen=True, slots=True)
class Ours:
    """Which deals the scheduler serves: those of `workerpool` that were matched while `owner` owned it."""

    workerpool: Contract
    owner: Wallet


def ingest(
    store: Store, registry_cache: RegistryCache, ours: Ours, deal_ids: Sequence[DealId], now: float
) -> tuple[list[TaskId], bool]:
    """Store these deals and the tasks of those that are no larger than a piece.

    Returns the first tasks of each, to be advanced at once, and whether there are more, which `pipeline.bulk` sees to.
    Raises RpcUnavailable.
    """
    first: list[TaskId] = []
    more = False
    for record in _read(store, registry_cache, ours, store.deals.match_blocks(deal_ids), now):
        try:
            more = more or record.bot_size > AT_ONCE
            if record.bot_size > PIECE:
                store.deals.store_for_later(record)
                continue
            lease = store.deals.lease_and_store(record, now)
            if lease is not None and _store_piece(store, lease, now):
                first += [task_id(record.deal_id, index) for index in _indices(record)[:AT_ONCE]]
        except Exception as error:
            if isolate.is_transient(error):
                raise
            log.exception("The deal cannot be stored.", action="deal_unstorable", deal=record.deal_id)
            store.deals.quarantine(record.deal_id, f"it cannot be stored ({error!r})")
    return first, more


def store_next_piece(store: Store, now: float) -> bool:
    """Store the next tasks of the large deal that has the fewest stored; False if no deal has tasks to store."""
    lease = store.deals.lease_next(now)
    if lease is None:
        return False
    try:
        _store_piece(store, lease, now)
    except Exception as error:
        if isolate.is_transient(error):
            raise
        log.exception("The deal cannot be stored.", action="deal_unstorable", deal=lease.deal.deal_id)
        store.deals.quarantine(lease.deal.deal_id, f"it cannot be stored ({error!r})")
    return True


def _read(
    store: Store, registry_cache: RegistryCache, ours: Ours, blocks: Mapping[DealId, BlockNumber], now: float
) -> list[DealRecord]:
    """The deals that can be read now. One that cannot stays `new`; one that never can is quarantined."""
    # The last block followed is at or above the deals' blocks: a node that is behind it says nothing about them.
    at = store.chain.cursor()
    records = []
    for (deal_id, block), answer in zip(blocks.items(), registry_cache.hub.deals(list(blocks), at), strict=True):
        match answer:
            case Known(deal) if deal.workerpool == ours.workerpool and deal.workerpool_owner != ours.owner:
                had, has = deal.workerpool_owner, ours.owner
                why = f"{had} owned the workerpool when it was matched, and the contracts take no step of it from {has}"
                _quarantine(store, deal_id, why)
            case Known(deal) if deal.workerpool == ours.workerpool:
                records += _record_of(store, registry_cache, deal, block, at, now)
            case Known():
                log.info("The deal is another workerpool's.", action="deal_foreign", deal=deal_id)
                store.deals.defer(deal_id, now + UNREAD_SECONDS)
            case Absent(why) | Unknown(why):
                # A reorg took the deal, or the node cannot say.
                log.info("The deal cannot be read now.", action="deal_unread", deal=deal_id, why=why)
                store.deals.defer(deal_id, now + UNREAD_SECONDS)
            case Broken(why):
                _quarantine(store, deal_id, why)
    return records


def _record_of(
    store: Store, registry_cache: RegistryCache, deal: Deal, block: BlockNumber, at: BlockRef | None, now: float
) -> list[DealRecord]:
    """The record of a deal; none for one that is quarantined or cannot be read now."""
    try:
        return [deal_record(deal, registry_cache, block, at)]
    except Unreadable as error:
        _quarantine(store, deal.deal_id, str(error))
    except RpcUnavailable as error:
        log.warning("The deal cannot be read now.", action="deal_unread", deal=deal.deal_id, why=str(error))
        store.deals.defer(deal.deal_id, now + UNREAD_SECONDS)
    return []


def _quarantine(store: Store, deal_id: DealId, why: str) -> None:
    """Quarantine a deal that cannot be served, with the reason."""
    log.error("The deal cannot be served.", action="deal_unreadable", deal=deal_id, why=why)
    store.deals.quarantine(deal_id, why)


def deal_record(deal: Deal, registry_cache: RegistryCache, block: BlockNumber, at: BlockRef | None) -> DealRecord:
    """A deal with its app, dataset and category, as of block `at`. Raises RpcUnavailable, Unreadable."""
    app = registry_cache.app(deal.app, at)
    dataset = registry_cache.dataset(deal.dataset, at) if deal.dataset else None
    seconds = registry_cache.category(deal.category, at).seconds
    return DealRecord(
        deal_id=deal.deal_id,
        app=deal.app,
        image=app.image,
        image_checksum=app.checksum,
        dataset=Dataset(address=dataset.address, url=dataset.location, checksum=dataset.checksum) if dataset else None,
        workerpool=deal.workerpool,
        requester=deal.requester,
        beneficiary=deal.beneficiary,
        callback=deal.callback or ZERO_ADDRESS,
        params=deal.params,
        trust=max(deal.trust, 1),
        tag=deal.tag,
        category_seconds=seconds,
        start_time=deal.start_time,
        bot_first=deal.bot_first,
        bot_size=deal.bot_size,
        worker_stake=deal.worker_stake,
        contribution_deadline=contribution_deadline(deal.start_time, seconds),
        final_deadline=final_deadline(deal.start_time, seconds),
        matched_block=block,
    )


def task_records(deal: DealRecord, first: int = 0, count: int | None = None) -> list[TaskRecord]:
    """New task records of a deal: `count` of its tasks, from the `first`th on; without `count`, all."""
    indices = _indices(deal)[first : None if count is None else first + count]
    return [
        TaskRecord(
            task_id=task_id(deal.deal_id, index),
            deal_id=deal.deal_id,
            index=index,
            requester=deal.requester,
            trust=deal.trust,
            tag=deal.tag,
            category_seconds=deal.category_seconds,
            contribution_deadline=deal.contribution_deadline,
            final_deadline=deal.final_deadline,
            worker_stake=deal.worker_stake,
            callback=deal.callback,
            matched_block=deal.matched_block,
            matched_at=deal.start_time,
            # The sweep need not look at what `pipeline.bulk` finds by itself.
            next_visit=0.0 if place < AT_ONCE else float(deal.contribution_deadline),
        )
        for place, index in enumerate(indices, first)
    ]


def _indices(deal: DealRecord) -> range:
    """The indexes of a deal's tasks."""
    return range(deal.bot_first, deal.bot_first + deal.bot_size)


def _store_piece(store: Store, lease: Lease, now: float) -> bool:
    """Store the next tasks of a deal; returns whether all of them are stored now."""
    deal, stored, again = lease.deal, lease.stored, lease.again
    piece = task_records(deal, stored, PIECE)
    again = store.tasks.insert_new(piece) < len(piece) or again
    stored += len(piece)
    if stored < deal.bot_size:
        # The lease ends at once, so that the next message continues, in whatever process.
        store.deals.progress(lease, stored, now, again=again)
        return False
    if again:
        # Seen before: a piece that was cut off, or the deal came back after a reorg, perhaps at another time.
        store.tasks.bring_back(deal)
    ingested = store.deals.mark_ingested(lease)
    if store.deals.orphaned_among([deal.deal_id]):
        # A reorg took the deal while its tasks were being stored, and could not see them.
        store.tasks.orphan([deal.deal_id])
    if ingested:
        DEALS.inc()
        log.info("Deal ingested.", action="deal_ingested", deal=deal.deal_id, tasks=deal.bot_size, trust=deal.trust)
    return ingested
