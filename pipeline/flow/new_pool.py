"""Where no machine that was ever right on chain can have a vote, as in every new pool, newcomers decide the tasks."""

from __future__ import annotations

from pipeline.domain.records import MOST_NEWCOMERS, TaskRecord
from pipeline.domain.replicas import NEWCOMERS_DECIDE, PROVEN_SECONDS, of_newcomers
from pipeline.store.workers import Workers


def decided_by(workers: Workers, tasks: list[TaskRecord], now: float) -> list[TaskRecord]:
    """The tasks, with so many newcomers allowed that they alone can decide each for which no proven worker is there:
    above trust NEWCOMERS_DECIDE none in the pool, below it none that is busy and was not asked.

    Two queries, only if one of the tasks limits newcomers.
    """
    bound = [task for task in tasks if task.newcomers < MOST_NEWCOMERS]
    if not bound:
        return tasks
    after = now - PROVEN_SECONDS
    any_proven = workers.any_proven(after)
    busy = workers.busy_proven(after) if any_proven and any(_is_low(task) for task in bound) else []

    def waits(task: TaskRecord) -> bool:
        return any(task.replicate(wallet) is None for wallet in busy) if _is_low(task) else any_proven

    return [task if waits(task) else of_newcomers(task) for task in tasks]


def _is_low(task: TaskRecord) -> bool:
    return task.trust <= NEWCOMERS_DECIDE
