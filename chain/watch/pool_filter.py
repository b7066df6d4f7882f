"""The filter that keeps our workerpool's events and drops those of every other pool on the same hub.

    SchedulerNotice, TaskInitialize    name their workerpool
    all others                         name a task only: ours if it is known as ours, or was initialized for us in
                                       the same reading

A task is known by its row, which exists as soon as its deal is ingested, or by its stored TaskInitialize. Either one
suffices, so a node that hides one of the two does not make the rest of the task's life look like another pool's.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from protocol.poco.events import SchedulerNotice, Seen, TaskInitialize
from protocol.types import Contract, TaskId

#: Tasks asked for in one query: a hub's busiest 2,000 blocks may name tens of thousands.
_QUERY = 1000
#: Tasks kept in memory, some 2 MB: those that were initialized last are those that events name.
MOST_KEPT = 10_000


class KnownTasks(Protocol):
    """What the store knows of tasks."""

    def known(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """Which of these tasks belong to our workerpool, as far as the present chain was followed."""


class PoolFilter:
    """The filter for one reading of consecutive blocks.

    Keeps in memory the tasks initialized in them, all of them until `stored` says that the store has them.
    """

    def __init__(self, workerpool: Contract, store: KnownTasks) -> None:
        self._workerpool = Contract(workerpool.lower())
        self._store = store
        self._fresh: set[TaskId] = set()

    def pick(self, seen: Sequence[Seen]) -> list[Seen]:
        """The events that concern our workerpool, in their order."""
        begun = {item.event.task_id: item.event for item in seen if isinstance(item.event, TaskInitialize)}
        # A task that another pool initializes here is not ours, whatever it was before a reorganisation.
        self._fresh.difference_update(begun)
        self._fresh.update(task for task, event in begun.items() if event.workerpool == self._workerpool)
        named = {item.event.task_id for item in seen if not isinstance(item.event, SchedulerNotice)}
        known = self._query_known(sorted(named - self._fresh - begun.keys()))
        return [item for item in seen if self._concerns(item, known)]

    def stored(self, but: AbstractSet[TaskId] = frozenset()) -> None:
        """Note that all events picked so far are in the store now. Where they are many, their tasks except `but` are
        forgotten, and asked for when they are named again.
        """
        if len(self._fresh) > MOST_KEPT:
            self._fresh &= but

    def _query_known(self, tasks: Sequence[TaskId]) -> set[TaskId]:
        """Which of the tasks the store knows as our workerpool's, asked for in bounded queries."""
        parts = (tasks[start : start + _QUERY] for start in range(0, len(tasks), _QUERY))
        return {task for part in parts for task in self._store.known(part)}

    def _concerns(self, item: Seen, known: set[TaskId]) -> bool:
        """Whether the event is a deal of our workerpool, or about one of its tasks: kept in memory or `known`."""
        if isinstance(item.event, SchedulerNotice):
            return item.event.workerpool == self._workerpool
        return item.event.task_id in self._fresh or item.event.task_id in known
