"""Looks now and then, while the machine runs, whether it would be given work, and logs what is wrong: once, and again
every hour while it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog

from workers.attempt import LogThrottle
from workers.context import Machine
from workers.fitness import doctor
from workers.fitness.rules import CheckResult

log = structlog.get_logger(__name__)

#: Seconds between two looks: funds that come are seen soon, and three calls to the node a minute are nothing.
CHECK_SECONDS = 60.0
#: Every so many looks, the engine and the way to the broker are looked at as well.
THOROUGH_EVERY = 10


class Checkup:
    """One machine's. `clock`: Unix seconds; `examine`: yields findings, `thorough` or not."""

    def __init__(
        self,
        machine: Machine,
        clock: Callable[[], float],
        examine: Callable[[Machine, float, bool], Iterator[CheckResult]] | None = None,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._examine = examine or _examine
        self._throttle = LogThrottle()
        self._looks = 0
        self._next = 0.0

    def run_if_due(self) -> None:
        """Look if it is time."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + CHECK_SECONDS
        thorough = self._looks % THOROUGH_EVERY == 0
        self._looks += 1
        for finding in self._examine(self._machine, now, thorough):
            self._note(finding, now)

    def _note(self, finding: CheckResult, now: float) -> None:
        if not finding.ok:
            # The words hold figures that always change: what was logged is that this part is not right.
            if self._throttle.should_log(finding.part, finding.part, now):
                log.error(f"Not fit to work: {finding.says}", action="not_fit", part=finding.part, **finding.numbers)
        elif self._throttle.forget(finding.part):
            log.info("Fit again.", action="fit_again", part=finding.part, says=finding.says)


def _examine(machine: Machine, now: float, thorough: bool) -> Iterator[CheckResult]:
    yield doctor.disk(machine.settings)
    yield from doctor.on_chain(machine, now)
    if thorough:
        yield doctor.limits(machine)
        yield doctor.broker(machine)
