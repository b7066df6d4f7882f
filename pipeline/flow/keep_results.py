"""Keeps the results that tasks were completed with on chain; unpins other results, and those kept long enough."""

from __future__ import annotations

from typing import Protocol

import structlog

from pipeline.domain.records import TaskRecord, TaskStage
from pipeline.store.client import Store
from pipeline.store.pins import Pin
from protocol.errors import StorageUnavailable

log = structlog.get_logger(__name__)

DAY = 24 * 3600.0
#: Results looked at in one run, more than a busy pool completes meanwhile; the rest is for the next one.
RESULTS = 2000
#: Results that the node may fail to pin or unpin in one run, each after PIN_SECONDS perhaps; then the run ends.
FAILURES = 3
#: Seconds until a result is looked at again whose task is open, or that the node could not pin or unpin.
AGAIN_SECONDS = 60.0


class Keeps(Protocol):
    """The IPFS node, as this module uses it (`config.ipfs.Ipfs`)."""

    def pin(self, cid: str) -> None:
        """Pin the content `cid`, so that the node keeps it. Raises StorageUnavailable."""

    def unpin(self, cid: str) -> None:
        """Unpin the content `cid`, so that the node may delete it. Raises StorageUnavailable."""


def keep_results(store: Store, ipfs: Keeps, days: float, now: float) -> None:
    """Pin or unpin the results that are due for a look, by what became of their tasks on chain. `tidy_up` calls it.

    `days`: how long each is kept from when it was stored; `now`: Unix seconds.
    """
    due = store.pins.due(now, RESULTS)
    tasks = {task.task_id: task for task in store.tasks.load_tasks({pin.task_id for pin in due})}
    failures = 0
    kept: list[Pin] = []
    for pin in due:
        try:
            if _look_at(store, ipfs, pin, tasks.get(pin.task_id), pin.stored_at + days * DAY, now):
                kept.append(pin)
        except StorageUnavailable as error:
            log.warning("A result is looked at again later.", action="pin_later", cid=pin.cid, why=str(error))
            # Behind the others, so that one that the node lacks does not hold them up.
            store.pins.look_again(pin, now + AGAIN_SECONDS, pinned=pin.pinned)
            failures += 1
            if failures == FAILURES:
                break
    # What a crash before this has pinned is pinned once more.
    store.pins.keep(kept, days * DAY)


def _look_at(store: Store, ipfs: Keeps, pin: Pin, task: TaskRecord | None, until: float, now: float) -> bool:
    """Pin, unpin or leave a result; whether it is pinned now and kept until its time is over."""
    if now < until:
        if task is None or task.stage not in (TaskStage.COMPLETED, TaskStage.FAILED):
            # Open, or not readable now (quarantined): a completed one may be among those.
            store.pins.look_again(pin, now + AGAIN_SECONDS, pinned=pin.pinned)
            return False
        if task.stage is TaskStage.COMPLETED and not _another_won(task, pin):
            if not pin.pinned:
                ipfs.pin(pin.cid)
            return True
    if pin.pinned and not store.pins.kept_for_others(pin):
        ipfs.unpin(pin.cid)
        if store.pins.kept_for_others(pin):
            # The same content was stored for another task meanwhile.
            ipfs.pin(pin.cid)
    store.pins.forget(pin)
    return False


def _another_won(task: TaskRecord, pin: Pin) -> bool:
    """Whether `results` on chain links to other content; text that is no link to IPFS counts as no."""
    return "/ipfs/" in (task.results or "") and pin.cid not in (task.results or "")
