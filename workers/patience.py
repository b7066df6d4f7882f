"""How long this machine goes on with one task: until its contribution deadline, and until somebody aborts it."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import TaskDeclined
from protocol.types import TaskId

#: Seconds between two looks at the journal; the check itself is called for every piece that arrives.
ABORT_LOOK_SECONDS = 1.0


class Patience:
    """For one task and one thread. `until` and `clock`: Unix seconds; `aborted` looks into the journal."""

    def __init__(self, task_id: TaskId, until: float, clock: Callable[[], float], aborted: Callable[[], bool]) -> None:
        self._task_id = task_id
        self._until = until
        self._clock = clock
        self._aborted = aborted
        self._looked_at = clock()

    def left(self) -> float:
        """Seconds until the contribution deadline; never less than a millisecond, since 0 means for ever to sockets."""
        return max(self._until - self._clock(), 0.001)

    def check(self) -> None:
        """Raise TaskDeclined if there is no point in going on."""
        now = self._clock()
        if now >= self._until:
            raise TaskDeclined(
                task=self._task_id, cause="CONTRIBUTION_TIMEOUT", why="its contribution deadline has passed"
            )
        if now < self._looked_at + ABORT_LOOK_SECONDS:
            return
        self._looked_at = now
        if self._aborted():
            raise TaskDeclined(task=self._task_id, cause="ABORTED_BY_WORKER", why="it was aborted")
