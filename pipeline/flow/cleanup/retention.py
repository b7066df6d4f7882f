"""Deletes the records of deals that are long over, and replaces the ledger's old amounts by sums.

    deals whose final deadline was SLUICE_KEEP_ENDED_DAYS ago, all of whose tasks have been over for as long
        ─► events, transactions and outputs of their tasks ─► tasks ─► deals
    movements and gas of days before that, proved equal to the chain ─► sums by day, owner and kind: to the wei the same

In pieces of bounded size, each of which may be repeated; what one run does not get to is for the next one. So what is
stored, and how long MongoDB's caches and indexes take, does not grow with a pool's age.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from chain.lane.model.intent import LaneId
from pipeline.domain.money.ledger import Books
from pipeline.scheduler import Scheduler
from pipeline.store.client import Store, database
from pipeline.store.ended import PastDeal
from pipeline.store.money.gas import GasBook
from pipeline.store.money.ledger import Movements
from protocol.types import BlockNumber, DealId

log = structlog.get_logger(__name__)

DAY = 24 * 3600.0
#: Least days: averages of gas are of a week, the daily cap of a day, and no reorganisation goes as far back.
LEAST_DAYS = 7.0
#: Deals taken at a time, and tasks of theirs deleted at a time: some 500 documents. The keys of their transactions are
#: ranges, four for each task, and a query of many ranges takes longer than several of few.
DEALS, TASKS = 100, 50
#: Amounts of the ledger put into sums by one transaction: well below a second, and below MongoDB's 16 MB of an entry.
AMOUNTS = 2000


@dataclass(frozen=True, slots=True)
class Removed:
    """Numbers of records that one run removed."""

    deals: int = 0
    tasks: int = 0
    #: Movements and transactions that are in sums now.
    amounts: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """Removes what is from before `before` (Unix seconds)."""

    store: Store
    lane: LaneId
    movements: Movements
    gas: GasBook
    before: float

    @classmethod
    def of(cls, scheduler: Scheduler) -> Retention | None:
        """By the scheduler's settings; None: everything is kept."""
        settings, wallet = scheduler.settings, scheduler.key.wallet
        if not settings.keep_ended_days:
            return None
        db, lane = database(settings), LaneId(settings.chain_id, wallet)
        before = scheduler.clock() - max(settings.keep_ended_days, LEAST_DAYS) * DAY
        hub = scheduler.hub.address
        return cls(scheduler.store, lane, Movements(db, settings.chain_id, hub, wallet), GasBook(db, lane), before)

    def run(self, seconds: float) -> Removed:
        """Remove for about so many seconds. Raises PyMongoError; what was removed before stays removed."""
        until = time.monotonic() + seconds
        deals, tasks = self._deals(until)
        removed = Removed(deals, tasks, self._amounts(until))
        if removed != Removed():
            log.info(
                "Records of deals long over were deleted.",
                action="ended_removed",
                deals=deals,
                tasks=tasks,
                amounts=removed.amounts,
            )
        return removed

    def _deals(self, until: float) -> tuple[int, int]:
        """Delete past deals and their tasks until a moment; returns how many of each."""
        deals = tasks = 0
        last: PastDeal | None = None
        while time.monotonic() < until and (page := self.store.ended.deals_past(self.before, DEALS, last)):
            last = page[-1]
            # One with a task that the chain has not ended, or has only lately, is passed over.
            still_open = self.store.lists.open_of_deals([deal.deal_id for deal in page])
            ended = [deal_id for deal_id, number in still_open.items() if not number]
            lately = self.store.ended.lately(ended, self.before)
            over = self.store.ended.begin([deal_id for deal_id in ended if deal_id not in lately])
            tasks += self._tasks(over, until)
            deals += self.store.ended.delete_deals(over)
        return deals, tasks

    def _tasks(self, deals: Sequence[DealId], until: float) -> int:
        """Delete the tasks of past deals until a moment; returns how many."""
        deleted = 0
        while time.monotonic() < until and (page := self.store.ended.tasks_of(deals, TASKS)):
            deleted += self.store.ended.delete_tasks(page, str(self.lane))
        return deleted

    def _amounts(self, until: float) -> int:
        """Sum up the ledger's past amounts by day until a moment; returns how many rows."""
        books = self.movements.books()
        if books is None:
            return 0
        day, summed = self.before // DAY * DAY, 0
        settled = _settled(books)
        while time.monotonic() < until and (count := self.movements.sum_up(day, settled, AMOUNTS)):
            summed += count
        if books.native is not None:
            while time.monotonic() < until and (count := self.gas.sum_up(day, books.native.count, AMOUNTS)):
                summed += count
        return summed


def _settled(books: Books) -> BlockNumber:
    """The last block whose movements are never read again, by no second reading and no comparison."""
    if books.proved is None:
        return BlockNumber(0)
    return books.proved if books.native is None else BlockNumber(min(books.proved, books.native.block))
