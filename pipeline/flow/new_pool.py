"""A pool without a machine that was ever right on chain, as each one begins, has only newcomers to decide its tasks."""

from __future__ import annotations

from pipeline.domain.records import MOST_NEWCOMERS, TaskRecord
from pipeline.domain.replicas import PROVEN_SECONDS, of_newcomers
from pipeline.store.workers import Workers


def decided_by(workers: Workers, tasks: list[TaskRecord], now: float) -> list[TaskRecord]:
    """Those tasks, with as many newcomers let in as the pool's machines demand. One query, if any is bound."""
    bound = any(task.newcomers < MOST_NEWCOMERS for task in tasks)
    return of_newcomers(tasks) if bound and not workers.any_proven(now - PROVEN_SECONDS) else tasks
