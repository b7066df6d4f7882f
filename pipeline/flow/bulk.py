"""What large deals need, a bounded piece at a time, from the store alone; a message in the queue `pipeline.bulk` starts
each piece.

    deal larger than a piece ─► its next tasks are stored ─┐
    tasks not handed over    ─► initialize, fair over deals ┼─► more to do: a message for the next piece
    expired tasks            ─► claim, with what is left    ┘

The lane's capacity for these transactions is about what a block holds, so that the transactions of all other tasks
never wait behind a whole bag.
"""

from __future__ import annotations

import secrets

from pipeline.broker import notify
from pipeline.domain.due import Turn, choose_due
from pipeline.flow.advance_each import advance_each
from pipeline.flow.ingest import store_next_piece
from pipeline.flow.transactions import BULK_CAPACITY
from pipeline.flow.visit import visit
from pipeline.scheduler import Scheduler

#: Urgent messages that may wait while bulk work is done: each takes about as long as a piece of it.
MOST_URGENT = 2
#: Initializes decided in one piece.
FEED = 2 * notify.ADVANCE_CHUNK


def bulk(scheduler: Scheduler) -> None:
    """Do one piece of bulk work, and publish a message for the next if there is more.

    Raises PyMongoError or an Unavailable; the sweep publishes the message again.
    """
    if scheduler.notifier.messages_waiting() > MOST_URGENT:
        # Urgent messages first. In a queue of its own this one would come again after each of them.
        scheduler.notifier.send_bulk_later()
        return
    stored = store_next_piece(scheduler.store, scheduler.clock())
    fed = feed(scheduler)
    if stored or fed:
        scheduler.notifier.send_bulk()


def has_capacity(scheduler: Scheduler) -> bool:
    """Whether the lane has capacity for more initializes; asked after a run that saw transactions mined."""
    return scheduler.transactions.open() <= BULK_CAPACITY // 2


def feed(scheduler: Scheduler) -> bool:
    """Have tasks that were never handed to the lane initialized, and expired ones claimed, as far as the lane has
    capacity.

    Returns whether more could be handed over.
    """
    capacity = BULK_CAPACITY - scheduler.transactions.open()
    if capacity <= 0:
        return False
    wanted = min(capacity, FEED)
    # From another deal each time, so that none is always last.
    now = scheduler.clock()
    after = f"0x{secrets.token_hex(32)}"
    tasks = scheduler.store.tasks.uninitialized(now, wanted, after)
    tasks = [] if tasks and scheduler.begins().nothing else tasks
    for chunk in notify.chunks(tasks, notify.ADVANCE_CHUNK):
        advance_each(scheduler, chunk)
    left = wanted - len(tasks)
    if left <= 0:
        return True
    if scheduler.notifier.messages_waiting():
        # Expired tasks are not urgent: the messages come first.
        return bool(tasks)
    expired = [
        task for task in scheduler.store.tasks.tasks_due(now, FEED, {Turn.EXPIRED}) if task.turn(now) is Turn.EXPIRED
    ]
    chosen = choose_due(expired, now, left, left)
    visit(scheduler, chosen)
    return len(chosen) == left
