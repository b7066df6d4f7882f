"""What open tasks wait for, in words: loads what `pipeline.domain.explain` needs, once for all tasks of a kind."""

from __future__ import annotations

from collections.abc import Sequence

from chain.lane.model.intent import LaneId
from chain.lane.store.mongo import MongoStore
from config.settings import Settings
from pipeline.domain import explain
from pipeline.domain.condition.attention import Unservable, unservable
from pipeline.domain.enclaves import awaits_challenge, supposing_challenge
from pipeline.domain.records import TaskRecord
from pipeline.domain.replicas import Timeouts
from pipeline.flow.machines.new_pool import decided_by
from pipeline.store.client import Store, database
from protocol.poco.view import fold
from protocol.types import Hash32, TaskId, Wallet

#: Machines read to find what tasks of one kind wait for, and tasks searched for those that no machine can take.
NEAREST, WAITING = 100, 200


def lane_trouble(settings: Settings, scheduler: Wallet) -> str | None:
    """Why the lane of the scheduler's wallet sends nothing, as a sentence; None if it does. Raises PyMongoError."""
    store, lane = MongoStore(database(settings)), LaneId(settings.chain_id, scheduler)
    halted, waiting, _ = store.notes(lane)
    why = halted or waiting
    if why is None:
        return None
    how = "stands still until you decide" if halted else "waits, and goes on by itself"
    return f"The lane {how}: {why.rstrip('.')} (`sluice tx ls`)."


def reasons(
    store: Store, settings: Settings, tasks: Sequence[TaskRecord], now: float, lane: str | None = None
) -> dict[TaskId, str | None]:
    """What each of these tasks waits for, as a sentence; tasks that are over are left out. `now`: Unix seconds; `lane`:
    what `lane_trouble` says, if anything.

    Raises PyMongoError.
    """
    timeouts = Timeouts.of(settings)
    waiting = [supposing_challenge(task, timeouts) for task in tasks if task.open]
    waiting = decided_by(store.workers, waiting, now)
    if not waiting:
        return {}
    logs = store.chain.logs.of_tasks([task.task_id for task in waiting])
    paused, holding = store.pause.state() is not None, store.hold.state()
    candidates = _candidates(store, settings, [task for task in waiting if task.wants], now)
    found = {}
    for task in waiting:
        view = fold(task.task_id, logs.get(task.task_id, ()), category_seconds=task.category_seconds)
        of_kind = candidates.get(explain.Kind.of(task), explain.Candidates())
        found[task.task_id] = explain.explain(
            task, view, of_kind, now, timeouts, paused=paused, holding=holding, lane=lane
        )
    return found


def what_nobody_can_take(store: Store, settings: Settings, now: float) -> list[Unservable]:
    """Tasks among the WAITING most urgent ones that no machine of the pool can take, by what they demand.

    `now`: Unix seconds. Raises PyMongoError.
    """
    timeouts = Timeouts.of(settings)
    waiting = [supposing_challenge(task, timeouts) for task in store.lists.waiting(now, WAITING)]
    waiting = [task for task in waiting if not awaits_challenge(task, timeouts)]
    waiting = decided_by(store.workers, waiting, now)
    return unservable(waiting, _candidates(store, settings, waiting, now), now)


def _candidates(
    store: Store, settings: Settings, tasks: Sequence[TaskRecord], now: float
) -> dict[explain.Kind, explain.Candidates]:
    """The machines nearest to taking these tasks, by kind of task."""
    seen_after = now - settings.worker_lost_seconds
    found: dict[explain.Kind, explain.Candidates] = {}
    for task in tasks:
        kind = explain.Kind.of(task)
        if kind not in found:
            workers = store.workers.nearest(Hash32(kind.tag), kind.stake, NEAREST)
            found[kind] = explain.Candidates.of(task, workers, now, seen_after)
    return found
