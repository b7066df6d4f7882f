"""From a deal on chain to task rows: read the deal and what it points to, store it, and hand its tasks on.

A deal that cannot be read now stays `new` in the store and is tried again; none is skipped. One that can never be read
(an answer that is not of the contract's types) is set aside and said so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog

from chain.hub import App, Deal, Hub
from chain.hub import Dataset as ChainDataset
from config.metrics import DEALS
from pipeline.records import DealRecord, TaskRecord
from pipeline.store.client import Store
from protocol.deadlines import contribution_deadline, final_deadline
from protocol.errors import BadMessage, RpcError
from protocol.ids import task_id
from protocol.types import ZERO_ADDRESS, BlockNumber, Contract, DealId, TaskId
from protocol.wire import Dataset

log = structlog.get_logger(__name__)

#: Tasks inserted at once; a bag may hold many thousands.
INSERT_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Apps and datasets read before; what a registry says of one never changes."""

    hub: Hub
    _apps: dict[Contract, App] = field(default_factory=dict)
    _datasets: dict[Contract, ChainDataset] = field(default_factory=dict)

    def app(self, address: Contract) -> App:
        """An app, from memory or from the chain."""
        if address not in self._apps:
            self._apps[address] = self.hub.app(address)
        return self._apps[address]

    def dataset(self, address: Contract) -> ChainDataset:
        """A dataset, from memory or from the chain."""
        if address not in self._datasets:
            self._datasets[address] = self.hub.dataset(address)
        return self._datasets[address]


def ingest(store: Store, catalogue: Catalogue, workerpool: Contract, deal_ids: Sequence[DealId]) -> list[TaskId]:
    """Store these deals and their tasks; returns all of their tasks, new or not. Raises RpcUnavailable."""
    blocks = store.deals.blocks(deal_ids)
    try:
        records = _read(catalogue, workerpool, blocks)
    except (BadMessage, RpcError):
        # One deal spoils the batch, perhaps on purpose: the others must not suffer.
        records = [record for each in blocks.items() for record in _read_alone(store, catalogue, workerpool, each)]
    _store(store, records)
    return [task_id(record.deal_id, index) for record in records for index in _indices(record)]


def _read(catalogue: Catalogue, workerpool: Contract, blocks: Mapping[DealId, BlockNumber]) -> list[DealRecord]:
    records = []
    for (deal_id, block), deal in zip(blocks.items(), catalogue.hub.deals(list(blocks)), strict=True):
        if deal is None:
            # Our node lags behind the one that told us, or a reorg took the deal: it stays `new`.
            log.info("The deal is not on chain now.", action="deal_absent", deal=deal_id)
        elif deal.workerpool == workerpool:
            records.append(deal_record(deal, catalogue, block))
    return records


def _read_alone(
    store: Store, catalogue: Catalogue, workerpool: Contract, noticed: tuple[DealId, BlockNumber]
) -> list[DealRecord]:
    try:
        return _read(catalogue, workerpool, dict([noticed]))
    except BadMessage as error:
        log.exception("The deal cannot be read, ever.", action="deal_unreadable", deal=noticed[0])
        store.deals.unreadable(noticed[0], str(error))
    except RpcError as error:
        log.warning("The deal cannot be read now.", action="deal_unread", deal=noticed[0], why=str(error))
    return []


def deal_record(deal: Deal, catalogue: Catalogue, block: BlockNumber) -> DealRecord:
    """A deal with its app, dataset and category. Raises RpcError, RpcUnavailable."""
    app = catalogue.app(deal.app)
    dataset = catalogue.dataset(deal.dataset) if deal.dataset else None
    seconds = catalogue.hub.category(deal.category).seconds
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


def task_records(deal: DealRecord) -> list[TaskRecord]:
    """The deal's tasks as they begin."""
    return list(_each_task(deal))


def _indices(deal: DealRecord) -> range:
    return range(deal.bot_first, deal.bot_first + deal.bot_size)


def _each_task(deal: DealRecord) -> Iterator[TaskRecord]:
    return (
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
        )
        for index in _indices(deal)
    )


def _store(store: Store, deals: Sequence[DealRecord]) -> None:
    store.deals.put(deals)
    # Made as they are stored: somebody may buy a bag of millions.
    tasks = (task for deal in deals for task in _each_task(deal))
    added = 0
    while chunk := list(islice(tasks, INSERT_CHUNK)):
        added += store.tasks.add(chunk)
    if added < sum(deal.bot_size for deal in deals):
        # Seen before: the same message twice, or the deal came back after a reorg, perhaps at another time.
        store.tasks.set_orphaned([deal.deal_id for deal in deals], orphaned=False)
        for deal in deals:
            store.tasks.set_deadlines(
                deal.deal_id, deal.contribution_deadline, deal.final_deadline, deal.start_time, deal.matched_block
            )
    store.deals.ingested(deals)
    gone = store.deals.gone([deal.deal_id for deal in deals])
    if gone:
        # A reorg took the deal while its tasks were being stored, and could not see them.
        store.tasks.set_orphaned(gone, orphaned=True)
    DEALS.inc(len(deals))
    for deal in deals:
        log.info("Deal ingested.", action="deal_ingested", deal=deal.deal_id, tasks=deal.bot_size, trust=deal.trust)
