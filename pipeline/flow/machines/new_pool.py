"""Lets newcomers decide tasks for which no proven machine is available, as in every new pool."""

from __future__ import annotations

from pipeline.domain.match import stake_locked
from pipeline.domain.records import MOST_NEWCOMERS, TaskRecord, WorkerRecord
from pipeline.domain.replicas import NEWCOMERS_DECIDE, PROVEN_SECONDS, let_newcomers_decide
from pipeline.store.machine.workers import Workers
from protocol.poco.tags import fits


def decided_by(workers: Workers, tasks: list[TaskRecord], now: float) -> list[TaskRecord]:
    """The tasks; those for which no proven worker is available are marked so that newcomers alone may decide them.

    Above trust NEWCOMERS_DECIDE, that is if the pool has no proven worker; up to it, if no proven worker that is busy
    or cools down could take the task that was not asked yet: who buys tasks can have machines fail and cool down.

    One query for the tasks up to NEWCOMERS_DECIDE and one for those above, as far as they limit newcomers.
    """
    bound = [task for task in tasks if task.newcomers < MOST_NEWCOMERS]
    if not bound:
        return tasks
    after = now - PROVEN_SECONDS
    any_proven = any(not _is_low(task) for task in bound) and workers.any_proven(after)
    busy = workers.busy_proven(after, now) if any(_is_low(task) for task in bound) else []

    def waits(task: TaskRecord) -> bool:
        """Whether the task is left to proven workers, since one may become free for it."""
        return any(_could_take(worker, task) for worker in busy) if _is_low(task) else any_proven

    return [task if waits(task) else let_newcomers_decide(task) for task in tasks]


def _could_take(worker: WorkerRecord, task: TaskRecord) -> bool:
    """Whether a worker that is busy or cools down could take the task later: not asked before, with the task's tag, and
    with stake for it when last read.
    """
    if task.replicate(worker.wallet) is not None or not fits(task.tag, worker.tag):
        return False
    return worker.facts.stake >= stake_locked(task)


def _is_low(task: TaskRecord) -> bool:
    """Whether machines that were never right on chain may decide the task alone."""
    return task.trust <= NEWCOMERS_DECIDE
