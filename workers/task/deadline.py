"""How long this machine works on one task: until its contribution deadline, or until the task is aborted.

now ── downloads, each tried again while it fails ──┤ WORK_MARGIN + the category's seconds ├── contribution deadline
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from protocol.errors import TaskDeclined
from protocol.results.error_result import ABORTED, CONTRIBUTION_TIMEOUT, MACHINE_FAILED
from protocol.types import TaskId

#: Seconds between two reads of the journal; the check itself is called for every piece that arrives.
ABORT_CHECK_SECONDS = 1.0
#: Seconds kept beside the category's own for what follows the app: packing, and a transaction that gets mined.
WORK_MARGIN = 30.0
#: Seconds before the second try of a download or pull, and the longest pause; each is about twice the one before, and
#: varies by half, so that machines that failed together do not come back together.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


def backoff(failures: int) -> float:
    """Seconds to wait after `failures` failures in a row."""
    return min(FIRST_PAUSE * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311


class TaskDeadline:
    """One task's deadline and abort. For one thread. `until` and `clock`: Unix seconds; `aborted` reads the journal.

    `work`: seconds the app may take yet; nothing is tried again that would leave less than that, and WORK_MARGIN.
    """

    def __init__(
        self,
        task_id: TaskId,
        until: float,
        clock: Callable[[], float],
        aborted: Callable[[], bool],
        *,
        work: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._task_id = task_id
        self._until = until
        self._clock = clock
        self._aborted = aborted
        self._work = work
        self._sleep = sleep
        self._looked_at = clock()

    def seconds_left(self) -> float:
        """Seconds until the contribution deadline; never less than a millisecond, since 0 means for ever to sockets."""
        return max(self._until - self._clock(), 0.001)

    def check(self) -> None:
        """Raise TaskDeclined if the deadline has passed or the task was aborted."""
        now = self._clock()
        if now >= self._until:
            raise TaskDeclined(
                task=self._task_id,
                cause=CONTRIBUTION_TIMEOUT,
                why="its contribution deadline has passed by this machine's clock",
            )
        # Also where the clock was set back.
        if self._looked_at <= now < self._looked_at + ABORT_CHECK_SECONDS:
            return
        self._looked_at = now
        if self._aborted():
            raise TaskDeclined(task=self._task_id, cause=ABORTED, why="it was aborted")

    def wait_before_retry(self, seconds: float, why: str) -> None:
        """Wait before another try. Raises TaskDeclined if afterwards no time would be left for the app (`why`: what
        went wrong), or if the task is aborted meanwhile.
        """
        if self._clock() + seconds + self._work + WORK_MARGIN > self._until:
            raise TaskDeclined(task=self._task_id, cause=MACHINE_FAILED, why=f"{why} (no time is left to try again)")
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Wait `seconds`. Raises TaskDeclined if the deadline passes or the task is aborted meanwhile."""
        # Counted, not read from the clock, which may be set back meanwhile.
        left = seconds
        while left > 0:
            self._sleep(min(left, ABORT_CHECK_SECONDS))
            left -= ABORT_CHECK_SECONDS
            self.check()
