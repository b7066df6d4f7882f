"""In a pool without a machine that was ever right on chain, as every pool begins, newcomers alone decide the tasks."""

from __future__ import annotations

from pipeline.domain.records import MOST_NEWCOMERS, TaskRecord
from pipeline.domain.replicas import PROVEN_SECONDS, of_newcomers
from pipeline.store.workers import Workers


def decided_by(workers: Workers, tasks: list[TaskRecord], now: float) -> list[TaskRecord]:
    """The tasks; in a pool without a proven worker, with so many newcomers allowed that they alone can decide each
    task.

    One query, only if one of the tasks limits newcomers.
    """
    bound = any(task.newcomers < MOST_NEWCOMERS for task in tasks)
    return of_newcomers(tasks) if bound and not workers.any_proven(now - PROVEN_SECONDS) else tasks
