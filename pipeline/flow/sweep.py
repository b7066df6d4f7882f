"""What the clock does to the store: find everything that an event should have moved, and move it.

rows set aside whose rest is over  read again
deals noticed and not ingested     ingest; the next piece of large ones
workers silent for too long        lost: their replicates are replaced
slots held by nothing              given back
open tasks whose visit is due      advance; with the contract's own word where the chain should have moved

Each is done though another fails. Of the tasks, those that a deadline or a worker waits for come first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import structlog

from pipeline.broker import notify
from pipeline.domain import progress
from pipeline.domain.records import ReplicateState, Stage, TaskRecord, WorkerRecord
from pipeline.flow import isolate
from pipeline.flow.advance import views
from pipeline.flow.advance_each import advance_each
from pipeline.flow.assign import assign
from pipeline.scheduler import Scheduler
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId

log = structlog.get_logger(__name__)

#: Deals, silent workers, workers with slots and rows set aside that one sweep takes up; the rest is for the next one.
DEALS, SILENT, HOLDING, ASIDE = 100, 100, 1000, 100
#: Due tasks read at a time, and the share of the time between two sweeps that visiting them may take: 1,000 a second.
DUE, SHARE = 100, 0.5
#: Tasks that somebody works on, or whose deadline costs money when it is missed. The rest waits for a worker.
URGENT = frozenset(Stage) - {Stage.RECEIVED, Stage.INITIALIZED, Stage.COMPLETED, Stage.FAILED}
#: Seconds a slot may be held by a task that does not know of it: an assignment writes both within moments.
SLOT_PATIENCE = 8.0
#: Seconds without news of chain or worker after which the contract is asked about a task that should have moved.
DOUBT_AFTER = 20.0


def sweep(scheduler: Scheduler) -> None:
    """One sweep. Raises PyMongoError or an Unavailable, after all of it was tried; the next sweep goes on."""
    steps = (look_again, take_up_deals, lose_silent_workers, free_forgotten_slots, visit, _assign)
    isolate.all_of([partial(step, scheduler) for step in steps])


def look_again(scheduler: Scheduler) -> None:
    """Read rows that were set aside and whose rest is over."""
    entries = scheduler.store.quarantine.due(scheduler.clock(), ASIDE)
    isolate.all_of([partial(scheduler.store.look_again, entry) for entry in entries])


def take_up_deals(scheduler: Scheduler) -> None:
    """Wake whoever reads and stores deals."""
    scheduler.wake.ingest(scheduler.store.deals.new(DEALS, scheduler.clock()))
    scheduler.wake.bulk()


def _assign(scheduler: Scheduler) -> None:
    assign(scheduler)


def lose_silent_workers(scheduler: Scheduler) -> None:
    """Replace what workers hold that were not heard of for `worker_lost_seconds`."""
    before = scheduler.clock() - scheduler.settings.worker_lost_seconds
    if not scheduler.store.workers.heard_since(before):
        # Rather nobody could be heard: the API or we were away. And nobody is there to take their work.
        return
    touched: list[TaskId] = []
    for wallet in scheduler.store.workers.silent(before, SILENT):
        if not scheduler.store.workers.set_lost(wallet, before):
            continue
        tasks = scheduler.store.tasks.lose_worker(wallet)
        # Last, so that a crash before it makes the next sweep do the above again.
        scheduler.store.workers.replaced(wallet)
        log.warning("Worker went silent.", action="worker_lost", wallet=wallet, tasks=len(tasks))
        touched += tasks
    for chunk in notify.chunks(touched, notify.ADVANCE_CHUNK):
        advance_each(scheduler, chunk)


def free_forgotten_slots(scheduler: Scheduler) -> None:
    """Give back slots that a crash left taken: reserved, but the task never heard of it or is past it."""
    before, last = scheduler.clock() - SLOT_PATIENCE, None
    while workers := scheduler.store.workers.holding_since(before, HOLDING, last):
        last = workers[-1].wallet
        _free_forgotten(scheduler, workers, before)


def _free_forgotten(scheduler: Scheduler, workers: Sequence[WorkerRecord], before: float) -> None:
    held = [
        (worker.wallet, item.task_id)
        for worker in workers
        for item in (*worker.held, *worker.pledged)
        if item.since < before
    ]
    tasks = {task.task_id: task for task in scheduler.store.tasks.load({task_id for _, task_id in held})}
    forgotten, computed = [], []
    for wallet, task_id in held:
        task = tasks.get(task_id)
        replicate = task.replicate(wallet) if task else None
        if task is None or replicate is None or not replicate.holds or not task.open:
            forgotten.append((wallet, task_id))
        elif replicate.pledged:
            computed.append((wallet, task_id))
    scheduler.store.workers.pledge(computed)
    if scheduler.store.workers.release(forgotten):
        log.info("Slots given back that nothing held.", action="slots_freed", slots=len(forgotten))


def visit(scheduler: Scheduler) -> None:
    """Advance tasks whose visit is due, urgent ones first, while there is time before the next sweep."""
    until = time.monotonic() + SHARE * scheduler.settings.sweep_seconds
    seen: set[TaskId] = set()
    while True:
        now = scheduler.clock()
        due = [task for task in scheduler.store.tasks.due(now, DUE, URGENT) if task not in seen]
        due = due or [task for task in scheduler.store.tasks.due(now, DUE) if task not in seen]
        if not due:
            return
        seen.update(due)
        _visit(scheduler, due)
        if time.monotonic() >= until:
            return


def _visit(scheduler: Scheduler, due: Sequence[TaskId]) -> None:
    tasks = scheduler.store.tasks.load(due)
    versions = {task.task_id: task.version for task in tasks}
    known = _second_opinion(scheduler, tasks)
    for chunk in notify.chunks(due, notify.ADVANCE_CHUNK):
        now = scheduler.clock()
        steps = advance_each(scheduler, chunk, known)
        visits = {
            step.before.task_id: (step.before.version, progress.next_visit(step.after, step.view, now, scheduler.pace))
            for step in steps
            if not step.changed and step.before.open
        }
        settled = {step.before.task_id for step in steps}
        # What could not be decided upon now takes no other's place.
        later = now + progress.SOONEST_VISIT
        visits |= {task: (versions[task], later) for task in chunk if task in versions and task not in settled}
        scheduler.store.tasks.visited(visits)


def _second_opinion(scheduler: Scheduler, tasks: Sequence[TaskRecord]) -> dict[TaskId, ChainView]:
    """The contract's views where they are ahead of the logs we have, or where a log cannot be read.

    None while the node is silent.
    """
    now = scheduler.clock()
    quiet = [task for task in tasks if now >= max(task.heard_at, task.matched_at) + DOUBT_AFTER]
    folded = views(scheduler, quiet) if quiet else {}
    unread = [task.task_id for task in quiet if task.task_id not in folded]
    doubted = [
        task.task_id for task in quiet if task.task_id in folded and _should_have_moved(task, folded[task.task_id])
    ]
    if not doubted and not unread:
        return {}
    try:
        read = scheduler.hub.tasks([*doubted, *unread])
    except (RpcUnavailable, RpcError) as error:
        log.warning("Doubts stay: the node does not answer.", action="doubt", tasks=len(doubted), why=str(error))
        return {}
    told = {view.task_id: view for view in read}
    ahead = {task: _merged(told[task], folded[task]) for task in doubted if _ahead(told[task], folded[task])}
    if ahead:
        log.warning("The contract is ahead of the logs.", action="late_find", tasks=sorted(ahead))
    return ahead | {task: told[task] for task in unread}


def _should_have_moved(task: TaskRecord, view: ChainView) -> bool:
    """Whether somebody was to send a transaction for it."""
    waits_for_vote = any(
        item.state is ReplicateState.COMPUTED and view.contribution(item.wallet) is None for item in task.replicates
    )
    return progress.awaited(task, view) or view.status is TaskStatus.REVEALING or waits_for_vote


def _ahead(view: ChainView, folded: ChainView) -> bool:
    return _progress(view) > _progress(folded)


def _progress(view: ChainView) -> tuple[int, int, int]:
    return view.status, len(view.contributions), len(view.revealed)


def _merged(view: ChainView, folded: ChainView) -> ChainView:
    """The contract's view with the block numbers that only logs know."""
    return replace(
        view,
        initialized_block=folded.initialized_block,
        consensus_block=folded.consensus_block,
        finalized_block=folded.finalized_block,
    )
