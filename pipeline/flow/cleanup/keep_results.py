"""Keeps the results that tasks were completed with on chain; unpins other results, and those kept long enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import structlog

from pipeline.domain.records import TaskRecord, TaskStage
from pipeline.store.client import Store
from pipeline.store.pins import Pin
from protocol.errors import StorageUnavailable

log = structlog.get_logger(__name__)

DAY = 24 * 3600.0
#: Results checked in one run, more than a busy pool completes between two; the rest is for the next one.
RESULTS = 2000
#: Results that the node may fail to pin or unpin in one run, each after PIN_SECONDS perhaps; then the run ends.
FAILURES = 3
#: Seconds until a result is checked again whose task is open, or that the node could not pin or unpin.
AGAIN_SECONDS = 60.0


class Keeps(Protocol):
    """The IPFS node, as this module uses it (`config.connections.ipfs.Ipfs`)."""

    def pin(self, cid: str) -> None:
        """Pin the content `cid`, so that the node keeps it. Raises StorageUnavailable."""

    def unpin(self, cid: str) -> None:
        """Unpin the content `cid`, so that the node may delete it. Raises StorageUnavailable."""


class Fate(Enum):
    """What to do with a stored result now."""

    KEPT = auto()
    LOOKED_AT_AGAIN = auto()
    DROPPED = auto()


def keep_results(store: Store, ipfs: Keeps, days: float, now: float) -> None:
    """Pin or unpin the results that are due, by what became of their tasks on chain. `tidy_up` calls it.

    `days`: how long each is kept from when it was stored; `now`: Unix seconds. What is kept is noted before anything is
    unpinned: it may be the same content.
    """
    due = store.pins.due(now, RESULTS)
    tasks = {task.task_id: task for task in store.tasks.load_tasks({pin.task_id for pin in due})}
    fates = {pin: _fate(pin, tasks.get(pin.task_id), pin.stored_at + days * DAY, now) for pin in due}
    node = _Node(store, ipfs, now)
    kept = [pin for pin, fate in fates.items() if fate is Fate.KEPT and (pin.pinned or node.tries(node.pin, pin))]
    # What a crash before this has pinned is pinned once more.
    store.pins.keep(kept, days * DAY)
    for pin, fate in fates.items():
        match fate:
            case Fate.LOOKED_AT_AGAIN:
                store.pins.look_again(pin, now + AGAIN_SECONDS, pinned=pin.pinned)
            case Fate.DROPPED:
                node.tries(node.drop, pin)
            case Fate.KEPT:
                continue


def _fate(pin: Pin, task: TaskRecord | None, until: float, now: float) -> Fate:
    """What to do with a stored result: keep it, drop it, or check it again later."""
    if now >= until:
        return Fate.DROPPED
    if task is None or task.stage not in (TaskStage.COMPLETED, TaskStage.FAILED):
        # Open, or not readable now (quarantined): a completed one may be among those.
        return Fate.LOOKED_AT_AGAIN
    return Fate.KEPT if task.stage is TaskStage.COMPLETED and not _another_won(task, pin) else Fate.DROPPED


@dataclass(slots=True)
class _Node:
    """The IPFS node in one run; after FAILURES it gets no more requests."""

    store: Store
    ipfs: Keeps
    now: float
    failures: int = 0

    def tries(self, what: Callable[[Pin], None], pin: Pin) -> bool:
        """Whether the pin or unpin (`what`) of a result succeeded; if not, the result is checked again later."""
        if self.failures == FAILURES:
            return False
        try:
            what(pin)
        except StorageUnavailable as error:
            log.warning("A result is looked at again later.", action="pin_later", cid=pin.cid, why=str(error))
            # Behind the others, so that one that the node lacks does not hold them up.
            self.store.pins.look_again(pin, self.now + AGAIN_SECONDS, pinned=pin.pinned)
            self.failures += 1
            return False
        return True

    def pin(self, pin: Pin) -> None:
        """Have the node keep a result."""
        self.ipfs.pin(pin.cid)

    def drop(self, pin: Pin) -> None:
        """Unpin a result, unless the same content is kept for another task, and forget it."""
        if pin.pinned and not self.store.pins.kept_for_others(pin):
            self.ipfs.unpin(pin.cid)
            if self.store.pins.kept_for_others(pin):
                # It was stored for another task meanwhile.
                self.ipfs.pin(pin.cid)
        self.store.pins.forget(pin)


def _another_won(task: TaskRecord, pin: Pin) -> bool:
    """Whether `results` on chain links to other content; text that is no link to IPFS counts as no."""
    return "/ipfs/" in (task.results or "") and pin.cid not in (task.results or "")
