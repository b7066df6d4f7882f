"""What large deals need, a bounded piece at a time, from the store alone; the queue `pipeline.bulk` only wakes it.

    deal larger than a piece ─► its next tasks are stored ─┐
    tasks not handed over    ─► initialize, fair over deals ┴─► more to do: wake-up for the next piece

The lane's room for these initializes is about what a block holds, so that the transactions of all other tasks never
wait behind a whole bag.
"""

from __future__ import annotations

import secrets

from pipeline.broker import notify
from pipeline.flow.advance_each import advance_each
from pipeline.flow.ingest import store_next_piece
from pipeline.scheduler import Scheduler

#: Transactions queued or in flight above which no more initializes of large deals are added: 8 batches of 50, about a
#: block of 30 M gas and the one after it.
BULK_ROOM = 400
#: Urgent messages that may wait while bulk work is done: each takes about as long as a piece of it.
MOST_URGENT = 2
#: Initializes decided in one piece.
FEED = 2 * notify.ADVANCE_CHUNK


def bulk(scheduler: Scheduler) -> None:
    """One piece of bulk work. Raises PyMongoError or an Unavailable; the sweep wakes it again."""
    if scheduler.wake.waiting() > MOST_URGENT:
        # Somebody waits for those: this takes its turn behind them.
        scheduler.wake.bulk()
        return
    stored = store_next_piece(scheduler.store, scheduler.clock())
    fed = feed(scheduler)
    if stored or fed:
        scheduler.wake.bulk()


def has_room(scheduler: Scheduler) -> bool:
    """Whether the lane is so empty that more initializes should come."""
    return scheduler.transactions.open() <= BULK_ROOM // 2


def feed(scheduler: Scheduler) -> bool:
    """Have tasks that were never handed to the lane initialized, as far as there is room; whether more could be."""
    room = BULK_ROOM - scheduler.transactions.open()
    if room <= 0:
        return False
    wanted = min(room, FEED)
    # From another deal each time, so that none is always last.
    tasks = scheduler.store.tasks.uninitialized(scheduler.clock(), wanted, f"0x{secrets.token_hex(32)}")
    for chunk in notify.chunks(tasks, notify.ADVANCE_CHUNK):
        advance_each(scheduler, chunk)
    return len(tasks) == wanted
