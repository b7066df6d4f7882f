"""Slots and stakes that workers' rows hold for tasks, compared with the tasks' replicates. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.domain.records import TaskRecord, WorkerRecord
from protocol.types import TaskId, Wallet

#: A worker and a task that it holds a slot or stake for.
Slot = tuple[Wallet, TaskId]


def forgotten_slots(
    workers: Iterable[WorkerRecord], tasks: Mapping[TaskId, TaskRecord], before: float
) -> tuple[list[Slot], list[Slot]]:
    """(slots that no replicate holds any more, slots of replicates whose stake alone is still promised).

    `tasks`: those that the workers hold, as far as they are stored; `before`: Unix seconds, only slots taken before it
    count, since an assignment writes both rows within moments.
    """
    forgotten: list[Slot] = []
    computed: list[Slot] = []
    for worker in workers:
        for item in (*worker.held, *worker.pledged):
            if item.since >= before:
                continue
            task = tasks.get(item.task_id)
            replicate = task.replicate(worker.wallet) if task else None
            if task is None or replicate is None or not replicate.holds or not task.open:
                forgotten.append((worker.wallet, item.task_id))
            elif replicate.pledged:
                computed.append((worker.wallet, item.task_id))
    return forgotten, computed
