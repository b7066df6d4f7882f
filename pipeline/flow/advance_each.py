"""Advance tasks; one that cannot be decided or carried out is quarantined, and all others go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.flow import isolate
from pipeline.flow.advance import Decision, advance
from pipeline.scheduler import Scheduler
from protocol.poco.view import ChainView
from protocol.types import TaskId


def advance_each(
    scheduler: Scheduler, task_ids: Sequence[TaskId], known: Mapping[TaskId, ChainView] | None = None
) -> list[Decision]:
    """Advance the tasks as `advance` does, but quarantine a task that fails by itself, so that the others go on.

    Celery tasks, the sweep and bulk work call it. Returns the decisions.
    """
    steps: list[Decision] = []

    def on_failure(task_id: TaskId, error: Exception) -> None:
        """Quarantine a task that fails by itself."""
        scheduler.store.tasks.reader.quarantine(task_id, f"it cannot be decided upon ({error!r})")

    if task_ids:
        isolate.each(task_ids, lambda chunk: steps.extend(advance(scheduler, chunk, known)), on_failure)
    return steps
