"""Tasks for enclaves that nobody can serve: not initialized, and taken up when a machine comes.

advance   initialize is due, and the pool or no machine can serve the tag ──► Postpone, for that costs gas
sweep     a machine that is there offers the tag ──► the tasks of the tag are visited, and initialized
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import structlog

from pipeline.domain import enclaves
from pipeline.domain.actions import Action, Postpone
from pipeline.domain.records import TaskRecord, WorkerRecord
from pipeline.flow.transactions import initializes, without_initialize
from pipeline.scheduler import Scheduler
from pipeline.store.client import Store
from protocol.poco.tags import Framework, fits, framework
from protocol.types import Hash32

log = structlog.get_logger(__name__)

#: Tags for which one sweep searches machines: requesters choose tags, and each costs a query.
TAGS = 20


class Served:
    """Whether a machine can serve tasks for enclaves, looked up once per tag in one call of `advance`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._offered: dict[Hash32, bool] = {}

    def without_unserved(self, task: TaskRecord, actions: Sequence[Action]) -> list[Action]:
        """The actions, with no first initialize of a task that nobody can serve. Raises PyMongoError."""
        if not initializes(actions) or not enclaves.awaits_initialize(task) or self._serves(task):
            return [*actions]
        return [*without_initialize(actions), *([] if task.unserved else [Postpone()])]

    def _serves(self, task: TaskRecord) -> bool:
        """Whether the pool serves tasks like this one and a machine that is there offers its tag. Raises
        PyMongoError.
        """
        if not enclaves.serves(task, self._scheduler.timeouts):
            return False
        if task.tag not in self._offered:
            self._offered[task.tag] = _offers(self._scheduler, task.tag)
        return self._offered[task.tag]


def can_be_taken_up(store: Store, kinds: Iterable[Framework], machines: Sequence[WorkerRecord]) -> bool:
    """Whether any task waits that one of these machines can serve, so that they will soon be taken by it. `kinds`: of
    enclaves that the pool serves. Raises PyMongoError.
    """
    served = frozenset(kinds)
    return any(framework(tag) in served and any(fits(tag, machine.tag) for machine in machines) for tag in _tags(store))


def take_up(scheduler: Scheduler) -> None:
    """Let tasks be initialized whose tag a machine offers now. The sweep calls it. Raises PyMongoError."""
    for tag in _tags(scheduler.store):
        if framework(tag) in scheduler.timeouts.enclaves and _offers(scheduler, tag):
            tasks = scheduler.store.unserved.take_up(tag, scheduler.clock())
            if tasks:
                log.info("Tasks can be served now.", action="tasks_taken_up", tag=tag, tasks=tasks)


def _tags(store: Store) -> list[Hash32]:
    """Tags of tasks that wait, from a random place on, so that many of them all get their turn."""
    return store.unserved.tags(TAGS, f"0x{secrets.token_hex(32)}")


def _offers(scheduler: Scheduler, tag: Hash32) -> bool:
    """Whether a machine that is there offers a tag. Raises PyMongoError."""
    return scheduler.store.census.offers(tag, scheduler.clock() - scheduler.settings.worker_lost_seconds)
