"""What open tasks wait for, in words: loads what `pipeline.domain.explain` needs, once for all tasks of a kind."""

from __future__ import annotations

from collections.abc import Sequence

from config.settings import Settings
from pipeline.domain import explain
from pipeline.domain.records import TaskRecord
from pipeline.domain.replicas import Timeouts
from pipeline.flow.new_pool import decided_by
from pipeline.store.client import Store
from protocol.poco.view import fold
from protocol.types import Hash32, TaskId

#: Machines looked at to tell what tasks of one kind wait for.
NEAREST = 100


def reasons(store: Store, settings: Settings, tasks: Sequence[TaskRecord], now: float) -> dict[TaskId, str | None]:
    """What each of these tasks waits for; those that are over are left out. `now`: Unix seconds.

    Raises PyMongoError.
    """
    waiting = decided_by(store.workers, [task for task in tasks if task.open], now)
    if not waiting:
        return {}
    logs = store.chain.logs.of_tasks([task.task_id for task in waiting])
    seen_after = now - settings.worker_lost_seconds
    timeouts = Timeouts.of(settings)
    paused, holding = store.pause.state() is not None, store.hold.state()
    candidates: dict[explain.Kind, explain.Candidates] = {}
    found = {}
    for task in waiting:
        kind = explain.Kind.of(task)
        if task.wants and kind not in candidates:
            workers = store.workers.nearest(Hash32(kind.tag), kind.stake, NEAREST)
            candidates[kind] = explain.Candidates.of(task, workers, now, seen_after)
        view = fold(task.task_id, logs.get(task.task_id, ()), category_seconds=task.category_seconds)
        of_kind = candidates.get(kind, explain.Candidates())
        found[task.task_id] = explain.explain(task, view, of_kind, now, timeouts, paused=paused, holding=holding)
    return found
