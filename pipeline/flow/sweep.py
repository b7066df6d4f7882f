"""The periodic sweep: finds everything that an event should have advanced, and advances it.

visits planned by a wrong clock    made now
quarantined rows that are due      read again
deals noticed and not ingested     ingest; the next piece of large ones
workers silent for too long        lost: their replicates are replaced
slots held by nothing              given back
a transfer of stake cut off        handed to the lane
tasks for enclaves, not served     initialized, if a machine has come that can
open tasks whose visit is due      advance; with the contract's state where an event may have been missed

Each step runs even if another fails. Tasks with a worker or a deadline ahead are visited first, those that can only be
claimed last (`pipeline.domain.due`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import structlog

from chain.lane.model.intent import LaneId
from chain.lane.store.lease import clock_of, new_holder, process_of
from pipeline.broker import notify
from pipeline.domain import due
from pipeline.domain.condition.hearing import latest_sweep
from pipeline.domain.machines.slots import forgotten_slots
from pipeline.domain.records import CLOCKS_APART, WorkerRecord
from pipeline.flow import isolate, unserved
from pipeline.flow.advance_each import advance_each
from pipeline.flow.assign import assign
from pipeline.flow.money.stake_transfer import StakeTransfers
from pipeline.flow.transactions import BULK_CAPACITY
from pipeline.flow.visit import visit
from pipeline.scheduler import Scheduler
from protocol.types import TaskId

log = structlog.get_logger(__name__)

#: Deals, silent workers, workers with slots and quarantined rows that one sweep handles; the rest is for the next one.
DEALS, SILENT, HOLDING, QUARANTINED = 100, 100, 1000, 100
#: Due tasks read at a time for each turn, those visited together, and the share of the time between two sweeps that
#: visiting them may take: 1,000 a second.
DUE, PIECE, SHARE = 500, 100, 0.5
#: Share of `worker_lost_seconds` without a ping of any worker that is taken for an outage. Less than 1, since workers
#: are silent for up to a ping's interval longer than an outage lasts.
UNHEARD_SHARE = 5 / 6
#: Seconds a slot may be held by a task that does not know of it: an assignment writes both within moments.
SLOT_TIMEOUT = 8.0


def sweep(scheduler: Scheduler) -> None:
    """Run every step of one sweep. Raises the first PyMongoError or Unavailable, after the last step."""
    first = (
        plan_anew,
        reread_quarantined,
        take_up_deals,
        lose_silent_workers,
        free_forgotten_slots,
        hand_over_transfer,
        unserved.take_up,
    )
    steps = (*first, visit_due, _assign)
    isolate.all_of([partial(step, scheduler) for step in steps])


def plan_anew(scheduler: Scheduler) -> None:
    """If this host's clock was set back, make every open task due now and end cool-downs that are too long: both were
    stored by the clock that was ahead, perhaps by an hour.
    """
    now = scheduler.clock()
    if scheduler.store.sweeps.clock_was_set_back(now, clock_of(new_holder())):
        log.warning("The clock was set back: every open task is looked at.", action="clock_set_back")
        scheduler.store.tasks.make_due(now)
        scheduler.store.rounds.end_long_cool_downs(now)


def reread_quarantined(scheduler: Scheduler) -> None:
    """Read quarantined rows again that are due."""
    entries = scheduler.store.quarantine.entries_due(scheduler.clock(), QUARANTINED)
    isolate.all_of([partial(scheduler.store.reread_quarantined, entry) for entry in entries])


def take_up_deals(scheduler: Scheduler) -> None:
    """Publish the ingest of deals that are not stored yet, and the next piece of large ones."""
    store = scheduler.store
    waiting = store.deals.any_waiting()
    if waiting:
        scheduler.notifier.send_ingest(store.deals.deals_to_ingest(DEALS, scheduler.clock()))
    if waiting or store.tasks.any_received():
        scheduler.notifier.send_bulk()


def _assign(scheduler: Scheduler) -> None:
    """Match waiting tasks and free machines, as one of the sweep's steps."""
    assign(scheduler)


def lose_silent_workers(scheduler: Scheduler) -> None:
    """Replace the replicates of workers that have not pinged for `worker_lost_seconds`.

    None is lost within that time of an outage of the API or of this process: their pings come one after another then.
    """
    now, silence = scheduler.clock(), scheduler.settings.worker_lost_seconds
    before = now - silence
    heard = scheduler.store.workers.heard_since(now - UNHEARD_SHARE * silence)
    last_after = latest_sweep(now, silence, scheduler.settings.sweep_seconds)
    holder = new_holder()
    unheard_at = scheduler.store.sweeps.record(
        now, heard=heard, last_after=last_after, by=process_of(holder) or "", clock=clock_of(holder)
    )
    # A moment that is still to come is of a clock that was wrong.
    if before < unheard_at <= now + CLOCKS_APART:
        return
    touched: list[TaskId] = []
    for wallet in scheduler.store.workers.silent_workers(before, SILENT):
        if not scheduler.store.workers.set_lost(wallet, before):
            continue
        tasks = scheduler.store.tasks.lose_worker(wallet)
        # Last, so that a crash before it makes the next sweep do the above again.
        scheduler.store.workers.mark_replaced(wallet)
        log.warning("Worker went silent.", action="worker_lost", wallet=wallet, tasks=len(tasks))
        touched += tasks
    for chunk in notify.chunks(touched, notify.ADVANCE_CHUNK):
        advance_each(scheduler, chunk)


def free_forgotten_slots(scheduler: Scheduler) -> None:
    """Give back slots that a crash left taken: reserved, but the task does not have the replicate, or not any more."""
    before, last = scheduler.clock() - SLOT_TIMEOUT, None
    while workers := scheduler.store.workers.holding_since(before, HOLDING, last):
        last = workers[-1].wallet
        _free_forgotten(scheduler, workers, before)


def _free_forgotten(scheduler: Scheduler, workers: Sequence[WorkerRecord], before: float) -> None:
    """Give back slots held since before a moment whose tasks no longer need them."""
    held = {item.task_id for worker in workers for item in (*worker.held, *worker.pledged) if item.since < before}
    if not held:
        return
    tasks = {task.task_id: task for task in scheduler.store.tasks.load_tasks(held)}
    forgotten, computed = forgotten_slots(workers, tasks, before)
    scheduler.store.workers.pledge(computed)
    if scheduler.store.workers.release(forgotten):
        log.info("Slots given back that nothing held.", action="slots_freed", slots=len(forgotten))


def hand_over_transfer(scheduler: Scheduler) -> None:
    """Give the lane a deposit or withdrawal that the API stored and then could not hand over."""
    lane = LaneId(scheduler.settings.chain_id, scheduler.key.wallet)
    StakeTransfers(
        scheduler.store.transfers, lane, scheduler.lane_store, scheduler.notifier.send_lane, scheduler.clock
    ).hand_over()


def visit_due(scheduler: Scheduler) -> None:
    """Visit tasks whose visit is due while there is time, in the order of `pipeline.domain.due`."""
    until = time.monotonic() + SHARE * scheduler.settings.sweep_seconds
    seen: set[TaskId] = set()
    while True:
        now = scheduler.clock()
        waiting = [task for task in scheduler.store.tasks.tasks_due(now, DUE) if task.task_id not in seen]
        expired = {task.task_id for task in waiting if task.turn(now) is due.Turn.EXPIRED}
        if expired and not seen:
            # Bulk work goes on with them as the lane has capacity.
            scheduler.notifier.send_bulk()
        capacity = BULK_CAPACITY - scheduler.transactions.open() if expired else 0
        chosen = due.choose_due(waiting, now, DUE, capacity)
        if not chosen:
            return
        for chunk in notify.chunks(chosen, PIECE):
            if expired.issuperset(chunk) and scheduler.notifier.messages_waiting():
                # Expired tasks are not urgent, and messages wait for this process.
                return
            seen.update(chunk)
            visit(scheduler, chunk)
            if time.monotonic() >= until:
                return
