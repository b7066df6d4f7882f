"""Tasks of machines that work alone, as their last report left them: the upload that follows need not read them.

Each is used once, and soon. Whatever else becomes of a task meanwhile, an upload that takes long does not see either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pipeline.domain.records import Replicate, ReplicateState, TaskRecord
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Step

#: Seconds within which an upload follows on the report; and tasks kept, beyond which all are read anew.
KEPT_SECONDS, MOST_KEPT = 10.0, 1_000


@dataclass(frozen=True, slots=True)
class LatelyComputed:
    """The tasks by their machines. `clock`: monotonic seconds. Safe to share between threads."""

    clock: Callable[[], float] = time.monotonic
    _kept: dict[tuple[TaskId, Wallet], tuple[float, TaskRecord, Replicate]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, task: TaskRecord, replicate: Replicate, now: float) -> None:
        """Keep a task and its replicate as they were before the report COMPUTED at `now` (Unix seconds), if the upload
        needs nothing else.
        """
        if replicate.mode is not Mode.SOLO or not replicate.live or not task.open:
            return
        computed = replace(replicate, state=ReplicateState.COMPUTED, steps={**replicate.steps, Step.COMPUTED: now})
        with self._lock:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[task.task_id, replicate.wallet] = (self.clock(), task, computed)

    def take(self, task_id: TaskId, wallet: Wallet) -> tuple[TaskRecord, Replicate] | None:
        """The task and the wallet's replicate, if it has just reported; a second time None."""
        with self._lock:
            found = self._kept.pop((task_id, wallet), None)
        if found is None or self.clock() >= found[0] + KEPT_SECONDS:
            return None
        return found[1], found[2]
