"""How long this machine works on one task: until its contribution deadline, or until the task is aborted.

now ── downloads, each tried again while it fails ──┤ WORK_MARGIN + the category's seconds ├── contribution deadline
    └─ FETCH_MARGIN before the pool gives the task to another machine, what still comes is given up: any server of the
       deal's can be slow to every machine
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from protocol.assignment import most_seconds
from protocol.errors import TaskDeclined
from protocol.results.error_result import ABORTED, CONTRIBUTION_TIMEOUT, MACHINE_FAILED, UNCLEAR_END
from protocol.types import TaskId

#: Seconds between two reads of the journal; the check itself is called for every piece that arrives.
ABORT_CHECK_SECONDS = 1.0
#: Seconds kept beside the category's own for what follows the app: packing, and a transaction that gets mined.
WORK_MARGIN = 30.0
#: Seconds for the report that a task's image or inputs did not come in time.
FETCH_MARGIN = 15.0
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
    `category`: the task's seconds, by which the pool gives it to another machine in the end; None: it never does.
    """

    def __init__(
        self,
        task_id: TaskId,
        until: float,
        clock: Callable[[], float],
        aborted: Callable[[], bool],
        *,
        work: float = 0.0,
        category: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._task_id = task_id
        self._until = until
        self._clock = clock
        self._aborted = aborted
        self._work = work
        self._fetch_until = math.inf if category is None else clock() + most_seconds(category) - FETCH_MARGIN
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

    def check_fetch(self) -> None:
        """As `check`, while an image or an input comes: raise TaskDeclined also if it takes too long."""
        self.check()
        if self._clock() >= self._fetch_until:
            raise TaskDeclined(
                task=self._task_id, cause=UNCLEAR_END, why="its image and inputs did not come while the pool waited"
            )

    def wait_before_retry(self, seconds: float, why: str, cause: str = MACHINE_FAILED) -> None:
        """Wait before another try. Raises TaskDeclined if afterwards no time would be left for the app (`why`: what
        went wrong; `cause`: of the decline), or if the task is aborted meanwhile.
        """
        if self._clock() + seconds + self._work + WORK_MARGIN > self._until:
            raise TaskDeclined(task=self._task_id, cause=cause, why=f"{why} (no time is left to try again)")
        self.wait(seconds)

    def wait_before_fetch(self, seconds: float, why: str) -> None:
        """As `wait_before_retry`, for an image or an input of the deal's, which may fail alike on every machine."""
        if self._clock() + seconds > self._fetch_until:
            raise TaskDeclined(task=self._task_id, cause=UNCLEAR_END, why=f"{why} (the pool does not wait any longer)")
        self.wait_before_retry(seconds, why, UNCLEAR_END)

    def wait(self, seconds: float) -> None:
        """Wait `seconds`. Raises TaskDeclined if the deadline passes or the task is aborted meanwhile."""
        # Counted, not read from the clock, which may be set back meanwhile.
        left = seconds
        while left > 0:
            self._sleep(min(left, ABORT_CHECK_SECONDS))
            left -= ABORT_CHECK_SECONDS
            self.check()
